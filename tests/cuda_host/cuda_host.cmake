# CUDA sources compiled as C++ for host threads (cuda_host.h says how). Included by tests/CMakeLists.txt.
include(CheckLanguage)
check_language(CXX)
if(NOT CMAKE_CXX_COMPILER)
  message(STATUS "no C++ compiler: the CUDA kernels are not tested on host threads")
  return()
endif()
enable_language(CXX)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)

file(GLOB CUDA_HOST_SOURCES CONFIGURE_DEPENDS cuda_host/*.cpp)
file(GLOB CUDA_KERNELS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cu)
# The backend over stand-ins for the runtime, cuBLASLt, cuDNN and NCCL; libs.c is in the place of what dlopen finds.
file(GLOB CUDA_BACKEND CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.c)
list(REMOVE_ITEM CUDA_BACKEND ${PROJECT_SOURCE_DIR}/kernels/cuda/cuda_absent.c
     ${PROJECT_SOURCE_DIR}/kernels/cuda/cuda_libs.c)
list(APPEND CUDA_BACKEND cuda_host/libs.c ${PROJECT_SOURCE_DIR}/kernels/nccl/comm_nccl.c)
set_source_files_properties(${CUDA_KERNELS} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++;-Wno-unknown-pragmas")

# cuda-host: the emulation and all kernels, fibers. cuda-host-tsan: the same, a host thread for each CUDA thread.
function(rung_cuda_host name)
  add_library(${name} STATIC ${CUDA_HOST_SOURCES} ${CUDA_KERNELS} ${CUDA_BACKEND})
  target_include_directories(${name} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/cuda_host)
  target_link_libraries(${name} PUBLIC rung-lib)
  # the emulated backend, not the one (or none) in librung
  target_link_options(${name} INTERFACE -Wl,-u,rung_cuda_backend_open,-u,rung_nccl_open)
  target_compile_options(${name} PRIVATE -O2)
endfunction()
rung_cuda_host(cuda-host)
if(NOT RUNG_SANITIZE MATCHES "address") # the two do not go together
  rung_cuda_host(cuda-host-tsan)
  target_compile_definitions(cuda-host-tsan PUBLIC CUDA_HOST_THREADS)
  target_compile_options(cuda-host-tsan PUBLIC -fsanitize=thread)
  target_link_options(cuda-host-tsan PUBLIC -fsanitize=thread)
endif()

# tests/test_cuda_<stem>.cpp is one program; a file that mentions CUDA_HOST_THREADS is built for both executors.
file(GLOB CUDA_TESTS CONFIGURE_DEPENDS test_cuda_*.cpp)
foreach(source ${CUDA_TESTS})
  get_filename_component(name ${source} NAME_WE)
  file(STRINGS ${source} threads_too REGEX "CUDA_HOST_THREADS")
  set(variants cuda-host)
  if(threads_too AND TARGET cuda-host-tsan)
    list(APPEND variants cuda-host-tsan)
  endif()
  foreach(variant ${variants})
    string(REPLACE "cuda-host" "${name}" program ${variant})
    string(REPLACE "-" "_" program ${program})
    add_executable(${program} ${source})
    target_link_libraries(${program} PRIVATE ${variant} rung-lib)
    target_compile_definitions(${program} PRIVATE RUNG_TEST_DIR="${CMAKE_CURRENT_SOURCE_DIR}"
      RUNG_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    add_test(NAME ${program} COMMAND ${program} WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
    set_tests_properties(${program} PROPERTIES TIMEOUT 600 LABELS cuda_emu)
  endforeach()
endforeach()

# What nvcc makes of the kernels, where there is one: each file a test.
find_program(RUNG_NVCC nvcc HINTS /usr/local/cuda/bin ENV CUDA_PATH PATH_SUFFIXES bin)
if(RUNG_NVCC)
  foreach(source ${CUDA_KERNELS})
    get_filename_component(stem ${source} NAME_WE)
    add_test(NAME cuda_budget_${stem} COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/cuda_budget.sh ${PROJECT_SOURCE_DIR}
             ${RUNG_NVCC} ${stem})
    set_tests_properties(cuda_budget_${stem} PROPERTIES TIMEOUT 600 LABELS cuda_emu)
  endforeach()
else()
  message(STATUS "no nvcc: the kernels' registers are not checked")
endif()

# The program itself over the emulated backend, for tests/cuda_host_cli.sh.
add_executable(rung-cuda-host ${RUNG_MAIN})
target_compile_definitions(rung-cuda-host PRIVATE RUNG_VERSION="${PROJECT_VERSION}")
target_link_libraries(rung-cuda-host PRIVATE cuda-host rung-mpi rung-lib)
add_test(NAME test_cuda_cli COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/cuda_host_cli.sh $<TARGET_FILE:rung-cuda-host>
         ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_BINARY_DIR}/test_cuda_cli.work)
set_tests_properties(test_cuda_cli PROPERTIES TIMEOUT 600 LABELS cuda_emu)

# The same over several processes, a GPU each.
add_test(NAME test_cuda_ranks COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/cuda_host_ranks.sh $<TARGET_FILE:rung-cuda-host>
         ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_BINARY_DIR}/test_cuda_ranks.work)
set_tests_properties(test_cuda_ranks PROPERTIES TIMEOUT 600 LABELS cuda_emu SKIP_RETURN_CODE 77)
if(MPIEXEC_EXECUTABLE)
  set_property(TEST test_cuda_ranks APPEND PROPERTY ENVIRONMENT RUNG_MPIRUN=${MPIEXEC_EXECUTABLE})
endif()
