#include "samplers/schedule.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

static const double pi = 3.14159265358979323846;

float linspace_f32(float start, float end, size_t n, size_t i) {
    if (n < 2) return start;
    const float step = (end - start) / (float)(n - 1);
    /* torch fills from both ends, each element with one rounding */
    return i < n / 2 ? fmaf(step, (float)i, start) : fmaf(-step, (float)(n - 1 - i), end);
}

double linspace_f64(double start, double end, size_t n, size_t i) {
    if (n < 2) return start;
    if (i == n - 1) return end;
    return (double)i * ((end - start) / (double)(n - 1)) + start;
}

float numpy_log_f32(float x) {
    /* log(1 + m) = P(m) / Q(m) for 1 + m in 1/sqrt(2)..sqrt(2), in one rounding an operation */
    static const float p[6] = {0.0f, 1.0f, 2.112677543f, 1.480000634f, 0.3808837741f, 0.02589979118f};
    static const float q[6] = {1.0f, 2.612677543f, 2.453006072f, 0.9864942959f, 0.1546476375f, 0.005875095403f};
    int e;
    float m = 2 * frexpf(x, &e);
    e--;
    if (m > 1.41421356f) {
        m *= 0.5f;
        e++;
    }
    m -= 1;
    float above = p[5], below = q[5];
    for (int i = 4; i >= 0; i--) {
        above = fmaf(above, m, p[i]);
        below = fmaf(below, m, q[i]);
    }
    return fmaf((float)e, 0.693147181f, above / below);
}

size_t trailing_count(double start, double step) { return (size_t)ceil(-start / -step); }

double trailing_at(double start, double step, size_t i) {
    const double delta = (start - step) - start; /* numpy takes the difference of the first two elements */
    return start + (double)i * delta;
}

/* ---- training noise ---- */

static double alpha_bar(beta_form form, double t) {
    if (form == BETAS_EXP) return exp(t * -12.0);
    if (form == BETAS_LAPLACE) {
        const double lambda = -0.5 * copysign(1, 0.5 - t) * log(1 - 2 * fabs(0.5 - t) + 1e-6);
        const double snr = exp(lambda);
        return sqrt(snr / (1 + snr));
    }
    const double c = cos((t + 0.008) / 1.008 * pi / 2);
    return c * c;
}

static float beta_at(const sched_config *c, size_t n, size_t i) {
    const float start = (float)c->beta_start, end = (float)c->beta_end;
    switch (c->beta_schedule) {
    case BETAS_LINEAR:
        return linspace_f32(start, end, n, i);
    case BETAS_SCALED_LINEAR: {
        const float root = linspace_f32((float)sqrt(c->beta_start), (float)sqrt(c->beta_end), n, i);
        return root * root;
    }
    case BETAS_SIGMOID: {
        const float x = linspace_f32(-6, 6, n, i);
        return 1 / (1 + expf(-x)) * (float)(c->beta_end - c->beta_start) + start;
    }
    default: {
        const double t1 = (double)i / (double)n, t2 = (double)(i + 1) / (double)n;
        const double beta = 1 - alpha_bar(c->beta_schedule, t2) / alpha_bar(c->beta_schedule, t1);
        return (float)fmin(beta, 0.999);
    }
    }
}

/* torch.cumprod of f32 keeps its running product in f64 */
static void cumulate(float *out, const float *betas, size_t n) {
    double product = 1;
    for (size_t i = 0; i < n; i++) {
        product *= (double)(1.0f - betas[i]);
        out[i] = (float)product;
    }
}

/* Lin et al. 2024, "Common diffusion noise schedules and sample steps are flawed", algorithm 1; `a` is scratch */
static void rescale_zero_snr(float *betas, float *a, size_t n) {
    cumulate(a, betas, n);
    for (size_t i = 0; i < n; i++) a[i] = sqrtf(a[i]);
    const float first = a[0], last = a[n - 1], scale = first / (first - last);
    for (size_t i = 0; i < n; i++) {
        const float root = (a[i] - last) * scale;
        a[i] = root * root;
    }
    betas[0] = 1 - a[0];
    for (size_t i = 1; i < n; i++) betas[i] = 1 - a[i] / a[i - 1];
}

rung_status train_noise_open(train_noise *t, const sched_config *c, bool patch_zero, rung_err *err) {
    const size_t n = (size_t)c->num_train_timesteps;
    *t = (train_noise){.n = n};
    if (c->trained_betas && c->n_trained != n)
        return rung_fail(err, RUNG_EFORMAT, "scheduler_config.json: %zu trained_betas for num_train_timesteps %zu",
                         c->n_trained, n);
    float *all = calloc(3 * n, sizeof(float));
    if (!all) return rung_fail(err, RUNG_ENOMEM, "scheduler: %zu training steps", n);
    t->alphas_cumprod = all;
    t->sigmas = all + n;
    t->log_sigmas = all + 2 * n;
    float *betas = t->sigmas;
    for (size_t i = 0; i < n; i++) betas[i] = c->trained_betas ? c->trained_betas[i] : beta_at(c, n, i);
    if (c->rescale_betas_zero_snr) rescale_zero_snr(betas, t->alphas_cumprod, n);
    cumulate(t->alphas_cumprod, betas, n);
    if (c->rescale_betas_zero_snr && patch_zero) t->alphas_cumprod[n - 1] = 0x1p-24f;
    for (size_t i = 0; i < n; i++) {
        const float a = t->alphas_cumprod[i];
        t->sigmas[i] = sqrtf((1 - a) / a);
        t->log_sigmas[i] = t->sigmas[i] > 0 ? numpy_log_f32(t->sigmas[i]) : -INFINITY;
    }
    return RUNG_OK;
}

void train_noise_close(train_noise *t) {
    free(t->alphas_cumprod);
    *t = (train_noise){0};
}

double train_sigma_at(const train_noise *t, double timestep) {
    if (timestep <= 0) return t->sigmas[0];
    if (timestep >= (double)(t->n - 1)) return t->sigmas[t->n - 1];
    const size_t j = (size_t)timestep;
    const double slope = (double)t->sigmas[j + 1] - (double)t->sigmas[j];
    return slope * (timestep - (double)j) + (double)t->sigmas[j];
}

double train_sigma_to_t(const train_noise *t, double sigma) {
    const double log_sigma = log(fmax(sigma, 1e-10));
    /* the last index whose log sigma is not above; no bisection, for patched zero-SNR schedules fall at the end */
    size_t low = t->n - 1;
    while (low > 0 && (double)t->log_sigmas[low] > log_sigma) low--;
    if (low > t->n - 2) low = t->n - 2;
    const float a = t->log_sigmas[low], b = t->log_sigmas[low + 1];
    const double w = fmin(fmax(((double)a - log_sigma) / (double)(a - b), 0), 1);
    return (1 - w) * (double)low + w * (double)(low + 1);
}

float train_t_to_sigma(const train_noise *t, float timestep) {
    const size_t low = (size_t)floorf(timestep), high = (size_t)ceilf(timestep);
    const float w = timestep - floorf(timestep);
    return expf((1 - w) * t->log_sigmas[low] + w * t->log_sigmas[high]);
}

size_t train_steps_above(const train_noise *t, double limit) {
    size_t n = t->n;
    while (n > 1) {
        const float a = t->alphas_cumprod[n - 1];
        if ((double)(logf(sqrtf(a)) - logf(sqrtf(1 - a))) >= limit) break;
        n--;
    }
    return n;
}

/* ---- spreading sigmas ---- */

/* Continued fraction of the incomplete beta function (Lentz), for x < (a + 1) / (a + b + 2) */
static double beta_fraction(double x, double a, double b) {
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < DBL_MIN ? DBL_MIN : d);
    double h = d;
    for (int m = 1; m < 300; m++) {
        const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        d = 1 / (1 + even * d);
        c = 1 + even / c;
        h *= d * c;
        const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 / (1 + odd * d);
        c = 1 + odd / c;
        h *= d * c;
        if (fabs(d * c - 1) < 1e-16) break;
    }
    return h;
}

double beta_quantile(double q) {
    const double a = 0.6;
    if (q <= 0) return 0;
    if (q >= 1) return 1;
    if (q > 0.5) return 1 - beta_quantile(1 - q); /* a = b: symmetric about 1/2 */
    const double log_beta = 2 * lgamma(a) - lgamma(2 * a);
    double lo = 0, hi = 0.5;
    double x = fmin(pow(q * a * exp(log_beta), 1 / a), 0.5);
    for (int k = 0; k < 100; k++) { /* Newton, kept inside the bracket */
        const double front = exp(a * (log(x) + log1p(-x)) - log_beta);
        const double miss = front * beta_fraction(x, a, a) / a - q;
        if (miss > 0)
            hi = x;
        else
            lo = x;
        double next = x - miss * x * (1 - x) / front;
        if (!(next > lo && next < hi)) next = lo + (hi - lo) / 2;
        if (fabs(next - x) <= 1e-15 * x) return next;
        x = next;
    }
    return x;
}

double spread_karras(double hi, double lo, double rho, size_t n, size_t i) {
    const double top = pow(hi, 1 / rho), bottom = pow(lo, 1 / rho);
    return pow(top + linspace_f64(0, 1, n, i) * (bottom - top), rho);
}

double spread_exponential(double hi, double lo, size_t n, size_t i) {
    return exp(linspace_f64(log(hi), log(lo), n, i));
}

double spread_beta(double hi, double lo, size_t n, size_t i) {
    return lo + beta_quantile(1 - linspace_f64(0, 1, n, i)) * (hi - lo);
}

static bool spreads(const sched_config *c) {
    return c->use_karras_sigmas || c->use_exponential_sigmas || c->use_beta_sigmas;
}

/* The config's flag over [lo, hi], which the config's sigma_min and sigma_max replace (never those of LMS karras) */
static double spread(const sched_config *c, double hi, double lo, size_t n, size_t i, bool lms) {
    const bool own_ends = lms && c->use_karras_sigmas;
    if (!own_ends && !isnan(c->sigma_min)) lo = c->sigma_min;
    if (!own_ends && !isnan(c->sigma_max)) hi = c->sigma_max;
    if (c->use_karras_sigmas) return spread_karras(hi, lo, 7, n, i);
    if (c->use_exponential_sigmas) return spread_exponential(hi, lo, n, i);
    return spread_beta(hi, lo, n, i);
}

/* ---- timetables ---- */

size_t spaced_timesteps(const sched_config *c, size_t steps, bool rounded, double *out) {
    const double train = (double)c->num_train_timesteps;
    size_t n = steps;
    if (c->timestep_spacing == SPACED_TRAILING) {
        const double step = train / (double)steps;
        n = trailing_count(train, step);
        for (size_t i = 0; i < n; i++) out[i] = rint(trailing_at(train, step, i)) - 1;
    } else if (c->timestep_spacing == SPACED_LEADING) {
        const size_t ratio = (size_t)c->num_train_timesteps / steps;
        for (size_t i = 0; i < n; i++) out[i] = (double)((n - 1 - i) * ratio) + (double)c->steps_offset;
    } else {
        for (size_t i = 0; i < n; i++) {
            const double t = linspace_f64(0, train - 1, n, n - 1 - i);
            out[i] = rounded ? rint(t) : (double)(float)t;
        }
    }
    return n;
}

static float last_sigma(const sched_config *c, const train_noise *t) { return c->final_sigma_min ? t->sigmas[0] : 0; }

void timetable_sigma(timetable *out, const timetable_ask *ask, bool lms, bool round_karras) {
    const sched_config *c = ask->c;
    const train_noise *train = ask->train;
    const size_t n = out->n = spaced_timesteps(c, ask->steps, false, out->t);
    double hi = train_sigma_at(train, out->t[0]), lo = train_sigma_at(train, out->t[n - 1]);
    for (size_t i = 0; i < n; i++) out->sigma[i] = (float)train_sigma_at(train, out->t[i]);
    out->sigma[n] = last_sigma(c, train);
    if (c->log_linear) { /* steps + 1 values and then the last one: a run ends at the smallest sigma */
        const float top = train->log_sigmas[train->n - 1], bottom = train->log_sigmas[0];
        for (size_t i = 0; i <= n; i++)
            out->sigma[i] = expf(i <= ask->steps ? linspace_f32(top, bottom, ask->steps + 1, i) : bottom);
        hi = out->sigma[0];
        lo = out->sigma[ask->steps];
    }
    if (spreads(c)) {
        out->n = ask->steps;
        for (size_t i = 0; i < ask->steps; i++) {
            const double sigma = spread(c, hi, lo, ask->steps, i, lms);
            out->sigma[i] = (float)sigma;
            out->t[i] = train_sigma_to_t(train, sigma);
            if (c->use_karras_sigmas && round_karras) out->t[i] = rint(out->t[i]);
        }
        out->sigma[out->n] = last_sigma(c, train);
    }
    const bool by_sigma = c->continuous && c->prediction == PREDICTS_V;
    if (by_sigma && c->log_linear && !spreads(c)) out->sigma[++out->n] = last_sigma(c, train); /* its extra value */
    for (size_t i = 0; i < out->n; i++) {
        if (by_sigma) out->t[i] = 0.25f * logf(out->sigma[i]);
        out->t[i] = (float)out->t[i];
    }
}

static void multistep_points(timetable *out, const timetable_ask *ask, bool linspace_only) {
    const sched_config *c = ask->c;
    const size_t last = train_steps_above(ask->train, c->lambda_min_clipped);
    const size_t steps = ask->steps;
    const spacing how = linspace_only ? SPACED_LINSPACE : c->timestep_spacing;
    out->n = steps;
    if (how == SPACED_TRAILING) {
        const double step = (double)c->num_train_timesteps / (double)steps;
        out->n = trailing_count((double)last, step);
        if (out->n > steps + 1) out->n = steps + 1;
        for (size_t i = 0; i < out->n; i++) out->t[i] = rint(trailing_at((double)last, step, i)) - 1;
    } else if (how == SPACED_LEADING) {
        const size_t ratio = last / (steps + 1);
        for (size_t i = 0; i < steps; i++) out->t[i] = (double)((steps - i) * ratio) + (double)c->steps_offset;
    } else {
        for (size_t i = 0; i < steps; i++) out->t[i] = rint(linspace_f64(0, (double)last - 1, steps + 1, steps - i));
    }
    for (size_t i = 0; i < out->n; i++) out->sigma[i] = (float)train_sigma_at(ask->train, out->t[i]);
}

static double shifted(double shift, double sigma) { return shift * sigma / (1 + (shift - 1) * sigma); }

/* The caller's 0.9f is a little below 0.9, whose timestep is 900: to seven decimals. */
static double flow_at(const timetable_ask *ask, size_t i) { return rint((double)ask->flow[i] * 1e7) / 1e7; }

/* Lists are taken as UniPC takes them, by the other methods too: diffusers has them there alone. */
static void flow_points(timetable *out, const timetable_ask *ask, bool unipc) {
    const sched_config *c = ask->c;
    const size_t n = out->n = ask->steps;
    const double train = (double)c->num_train_timesteps;
    double stretch = 1;
    if ((unipc || ask->flow) && c->shift_terminal > 0) {
        const double end = ask->flow ? flow_at(ask, n - 1) : linspace_f64(1, 1 / train, n + 1, n - 1);
        stretch = (1 - shifted(c->shift, end)) / (1 - c->shift_terminal);
    }
    for (size_t i = 0; i < n; i++) {
        double s;
        if (unipc || ask->flow) {
            s = shifted(c->shift, ask->flow ? flow_at(ask, i) : linspace_f64(1, 1 / train, n + 1, i));
            if (stretch != 1) s = 1 - (1 - s) / stretch;
            if (i == 0 && fabs(s - 1) < 1e-6) s -= 1e-6; /* log(1 - sigma) stays finite */
        } else {
            s = shifted(c->shift, 1.0 - linspace_f64(1, 1 / train, n + 1, n - i));
        }
        out->sigma[i] = (float)s;
        out->t[i] = trunc(s * train);
    }
}

/* Lu et al. 2022: uniform in lambda = log sigma, over the whole training schedule */
static double spread_lu(const train_noise *t, size_t n, size_t i) {
    const double top = t->log_sigmas[t->n - 1], bottom = t->log_sigmas[0];
    return exp(top + linspace_f64(0, 1, n, i) * (bottom - top));
}

static void spread_points(timetable *out, const timetable_ask *ask, bool dpm_multistep, bool unipc) {
    const sched_config *c = ask->c;
    const train_noise *train = ask->train;
    const size_t n = out->n = ask->steps;
    const bool lu = c->use_lu_lambdas && !c->use_karras_sigmas;
    const bool keeps_fractions = dpm_multistep && c->beta_schedule == BETAS_COSINE;
    const bool rounds = (c->use_karras_sigmas || lu) && !keeps_fractions;
    for (size_t i = 0; i < n; i++) {
        const double hi = train->sigmas[train->n - 1], lo = train->sigmas[0];
        double sigma = lu ? spread_lu(train, n, i) : spread(c, hi, lo, n, i, false);
        double t = train_sigma_to_t(train, sigma);
        if (unipc && c->use_karras_sigmas && c->use_flow_sigmas) {
            sigma = sigma / (sigma + 1);
            t = sigma * (double)c->num_train_timesteps;
        } else if (rounds) {
            t = rint(t);
        }
        out->sigma[i] = (float)sigma;
        out->t[i] = trunc(t);
    }
}

void timetable_multistep(timetable *out, const timetable_ask *ask, table_end end, bool linspace_only) {
    const sched_config *c = ask->c;
    const bool spread_out = spreads(c) || c->use_lu_lambdas;
    if (spread_out)
        spread_points(out, ask, end == END_BY_CONFIG && !linspace_only, end == END_UNIPC);
    else if (c->use_flow_sigmas)
        flow_points(out, ask, end == END_UNIPC);
    else
        multistep_points(out, ask, linspace_only);
    const bool listed = spread_out || c->use_flow_sigmas;
    float last = last_sigma(c, ask->train);
    if (end == END_REPEATS_LAST) last = listed ? out->sigma[out->n - 1] : ask->train->sigmas[0];
    if (end == END_UNIPC && listed && c->final_sigma_min) last = out->sigma[out->n - 1];
    out->sigma[out->n] = last;
}

double dynamic_shift_mu(const sched_config *c, size_t tokens) {
    const double slope = (c->max_shift - c->base_shift) / (double)(c->max_image_seq_len - c->base_image_seq_len);
    return (double)tokens * slope + (c->base_shift - slope * (double)c->base_image_seq_len);
}
