# kernels/cuda/cuda.cmake, included by the CMakeLists.txt above.
# The CUDA backend, where the toolkit (12 or newer), cuBLASLt and cuDNN 9 are; a build with the CPU backend alone elsewhere,
# and then a status line says what is missing. Sets RUNG_CUDA_FOUND and adds to RUNG_SOURCES.
#
#   RUNG_CUDA                AUTO; ON: an error when something is missing; OFF
#   RUNG_CUDA_ARCHITECTURES  as CMAKE_CUDA_ARCHITECTURES. Default: this machine's GPU; without one PTX of compute
#                            capability 8.0, which the driver of any GPU from 8.0 on translates when it first sees it.
#                            A program to give away: -DRUNG_CUDA_ARCHITECTURES="80-real;86-real;89-real;90-real;100"
set(RUNG_CUDA AUTO CACHE STRING "AUTO, ON or OFF")
set(RUNG_CUDA_ARCHITECTURES "" CACHE STRING "GPU architectures; empty: this machine's GPU, else PTX for 8.0 and newer")
set(RUNG_CUDA_FOUND OFF)

function(rung_find_cuda missing)
  set(${missing} "" PARENT_SCOPE)
  if(RUNG_SANITIZE)
    set(${missing} "not with sanitizers" PARENT_SCOPE)
    return()
  endif()
  find_package(CUDAToolkit 12 QUIET)
  if(NOT CUDAToolkit_FOUND OR NOT TARGET CUDA::cudart_static OR NOT CUDAToolkit_NVCC_EXECUTABLE)
    set(${missing} "no CUDA Toolkit 12 or newer" PARENT_SCOPE)
    return()
  endif()
  find_path(RUNG_CUBLASLT_INCLUDE cublasLt.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_path(RUNG_CUDNN_INCLUDE cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ENV CUDNN_ROOT PATH_SUFFIXES include)
  if(NOT RUNG_CUBLASLT_INCLUDE OR NOT RUNG_CUDNN_INCLUDE)
    set(${missing} "no headers of cuBLASLt and cuDNN" PARENT_SCOPE)
    return()
  endif()
  file(STRINGS ${RUNG_CUDNN_INCLUDE}/cudnn_version.h major REGEX "#define CUDNN_MAJOR 9$")
  if(NOT major)
    set(${missing} "cuDNN in ${RUNG_CUDNN_INCLUDE} is not version 9" PARENT_SCOPE)
    return()
  endif()
  foreach(found VERSION INCLUDE_DIRS LIBRARY_DIR) # find_package's variables end with this function
    set(CUDAToolkit_${found} ${CUDAToolkit_${found}} PARENT_SCOPE)
  endforeach()
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    set(ENV{CUDACXX} ${CUDAToolkit_NVCC_EXECUTABLE})
  endif()
  include(CheckLanguage)
  check_language(CUDA) # nvcc needs a C++ compiler that it knows
  if(NOT CMAKE_CUDA_COMPILER)
    set(${missing} "nvcc does not work here (it needs a C++ compiler)" PARENT_SCOPE)
  endif()
endfunction()

if(NOT RUNG_CUDA STREQUAL "OFF")
  rung_find_cuda(missing)
  if(missing AND RUNG_CUDA STREQUAL "ON")
    message(FATAL_ERROR "RUNG_CUDA=ON: ${missing}")
  elseif(missing)
    message(STATUS "CUDA backend: off (${missing}): the CPU backend only")
  else()
    set(RUNG_CUDA_FOUND ON)
  endif()
endif()

if(RUNG_CUDA_FOUND)
  if(RUNG_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES ${RUNG_CUDA_ARCHITECTURES})
  elseif(EXISTS /dev/nvidia0)
    set(CMAKE_CUDA_ARCHITECTURES native)
  else()
    set(CMAKE_CUDA_ARCHITECTURES 80-virtual)
  endif()
  message(STATUS "CUDA backend: on (toolkit ${CUDAToolkit_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES})")
  enable_language(CUDA)
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  file(GLOB RUNG_CUDA_KERNELS CONFIGURE_DEPENDS kernels/cuda/*.cu)
  file(GLOB RUNG_CUDA_SOURCES CONFIGURE_DEPENDS kernels/cuda/*.c)
  list(REMOVE_ITEM RUNG_CUDA_SOURCES ${PROJECT_SOURCE_DIR}/kernels/cuda/cuda_absent.c)
  list(APPEND RUNG_SOURCES ${RUNG_CUDA_KERNELS} ${RUNG_CUDA_SOURCES})
  set_source_files_properties(${RUNG_CUDA_SOURCES} PROPERTIES
    COMPILE_DEFINITIONS RUNG_CUDA_LIBRARY_DIR="${CUDAToolkit_LIBRARY_DIR}")
  set_source_files_properties(${RUNG_CUDA_KERNELS} PROPERTIES
    COMPILE_OPTIONS "-Werror;all-warnings;-Xcompiler=-Wall,-Wextra,-Wshadow,-Werror")
else()
  list(APPEND RUNG_SOURCES kernels/cuda/cuda_absent.c)
endif()

# The runtime is linked statically: without a driver it says so. cuBLASLt and cuDNN are opened when they are asked for.
function(rung_link_cuda target)
  target_include_directories(${target} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS} ${RUNG_CUBLASLT_INCLUDE}
    ${RUNG_CUDNN_INCLUDE})
  target_link_libraries(${target} PRIVATE CUDA::cudart_static ${CMAKE_DL_LIBS})
endfunction()
