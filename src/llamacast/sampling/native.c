/* A LLaMA transformer in float32, by one thread: over whole sequences, and over the newest step of
 * many sample paths.
 *
 * Compiled for the machine at hand by native.py, which tells HEAD_WIDTH (a power of two), QUERIES (how
 * many samples read a shared prefix together) and EPSILON (of norms), and makes the arrays. Products with weights hold a tile of the result in registers while they run through
 * a panel of weights, which lies in memory in the order in which it is read. Whatever the number of
 * rows, each result is the same sum in the same order.
 */
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define TILE_ROWS 8
#else
#define LANES 8
#define TILE_ROWS 4
#endif
#define TILE_VECTORS 3
#define PANEL (TILE_VECTORS * LANES) /* columns of a panel of weights */
#define PARTS 4                      /* sums side by side, which need not wait for each other */
#define D HEAD_WIDTH
/* Floats of LANES steps of QUERIES samples' tails: keys, [sample][D][LANES], and then values,
 * [sample][LANES][D]. */
#define GROUP_BLOCK (2 * QUERIES * D * LANES)

#define CACHE_LINE 16 /* floats */
#define LOG2_E 1.44269504f
#define LOWEST (-1e30f)

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t whole __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float head __attribute__((vector_size(4 * D), aligned(4), may_alias));

typedef struct {
    int64_t num_layers, num_heads, width, feedforward_width;
} Shape;

/* For each layer the panels of: queries, keys and values; output; gate and up; down. */
typedef struct {
    const float *panels, *final_norm;
} Weights;

typedef struct {
    const float *keys;   /* [layer][series][head][block][D][LANES] */
    const float *values; /* [layer][series][head][step][D] */
    int64_t length;
} Prefix;

int64_t num_lanes(void) { return LANES; }
int64_t panel_width(void) { return PANEL; }

static inline lanes load(const float *from) { return *(const lanes *)from; }
static inline void store(float *to, lanes x) { *(lanes *)to = x; }

static inline lanes larger(lanes a, lanes b) {
    const whole mask = (whole)(a > b);
    return (lanes)(((whole)a & mask) | ((whole)b & ~mask));
}

static inline float sum_of(lanes x) {
    float parts[LANES];
    memcpy(parts, &x, sizeof parts);
    for (int half = LANES / 2; half; half /= 2)
        for (int k = 0; k < half; k++) parts[k] += parts[k + half];
    return parts[0];
}

static inline float largest_of(lanes x) {
    float parts[LANES];
    memcpy(parts, &x, sizeof parts);
    for (int half = LANES / 2; half; half /= 2)
        for (int k = 0; k < half; k++)
            parts[k] = parts[k] > parts[k + half] ? parts[k] : parts[k + half];
    return parts[0];
}

/* 2 to the power x, for x <= 126: the whole part by bits, the rest by Cephes' polynomial.
 *
 * Below -80 it stays where it is: nothing beside 1 in any sum, and not yet a denormal number, with
 * which processors are slow.
 */
static inline lanes exp2_of(lanes x) {
    x = larger(x, (lanes){} - 80.0f);
    lanes shifted = x + 12582912.0f; /* 1.5 * 2^23: such a number has no room for a fraction */
    lanes rest = x - (shifted - 12582912.0f);
    lanes power = (lanes){} + 1.535336188319500e-4f;
    power = power * rest + 1.339887440266574e-3f;
    power = power * rest + 9.618437357674640e-3f;
    power = power * rest + 5.550332471162809e-2f;
    power = power * rest + 2.402264791363012e-1f;
    power = power * rest + 6.931472028550421e-1f;
    power = power * rest + 1.0f;
    return (lanes)((whole)power + ((whole)shifted << 23));
}

/* Tails that are needed soon, in the order in which they are read: fetched while products leave
 * memory idle. */
typedef struct {
    const float *group;
    int64_t groups_left, block, num_blocks, block_stride, place, pace;
} Coming;

static inline void fetch(Coming *coming) {
    for (int64_t n = 0; n < coming->pace && coming->groups_left; n++) {
        const float *block = coming->group + coming->block * coming->block_stride;
        __builtin_prefetch(block + coming->place, 0, 2);
        coming->place += CACHE_LINE;
        if (coming->place < GROUP_BLOCK) continue;
        coming->place = 0;
        if (++coming->block < coming->num_blocks) continue;
        coming->block = 0;
        coming->group += GROUP_BLOCK;
        coming->groups_left--;
    }
}

static int64_t in_panels(int64_t columns) { return (columns + PANEL - 1) / PANEL * PANEL; }

static inline __attribute__((always_inline)) void multiply_tile(int rows, const float *in,
                                                                int64_t in_stride, int64_t depth,
                                                                const float *panel, float *out,
                                                                int64_t out_stride, int add,
                                                                Coming *coming) {
    lanes sums[TILE_ROWS][TILE_VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < TILE_VECTORS; v++)
            sums[r][v] = add ? load(out + r * out_stride + v * LANES) : (lanes){};
    for (int64_t k = 0; k < depth; k++, panel += PANEL) {
        lanes weights[TILE_VECTORS];
        for (int v = 0; v < TILE_VECTORS; v++) weights[v] = load(panel + v * LANES);
        fetch(coming);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < TILE_VECTORS; v++) sums[r][v] += weights[v] * in[r * in_stride + k];
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < TILE_VECTORS; v++) store(out + r * out_stride + v * LANES, sums[r][v]);
}

/* out (+)= in times weights; `columns` is whole panels, and the stride of `out`. */
static void multiply(const float *in, int64_t in_stride, int64_t rows, int64_t depth,
                     const float *panels, int64_t columns, float *out, int add, Coming *coming) {
#define TILE(n)                                                                              \
    case n:                                                                                  \
        multiply_tile(n, in + r * in_stride, in_stride, depth, panels, out + r * columns + c, \
                      columns, add, coming);                                                  \
        break;
    for (int64_t c = 0; c < columns; c += PANEL, panels += depth * PANEL)
        for (int64_t r = 0; r < rows; r += TILE_ROWS) {
            const int64_t left = rows - r;
            switch (left < TILE_ROWS ? left : TILE_ROWS) {
                TILE(1) TILE(2) TILE(3) TILE(4)
#if TILE_ROWS > 4
                TILE(5) TILE(6) TILE(7) TILE(8)
#endif
            }
        }
#undef TILE
}

/* Rows over their root mean square; widths are whole lanes. */
static void normalise(const float *in, int64_t stride, float *out, int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++, in += stride, out += stride) {
        lanes squares = {};
        for (int64_t k = 0; k < width; k += LANES) squares += load(in + k) * load(in + k);
        const float scale = 1.0f / __builtin_sqrtf(sum_of(squares) / width + EPSILON);
        for (int64_t k = 0; k < width; k += LANES) store(out + k, load(in + k) * scale);
    }
}

/* gate * sigmoid(gate) * up, over the gate. */
static void swiglu(float *gate_up, int64_t rows, int64_t width, int64_t half) {
    for (int64_t r = 0; r < rows; r++, gate_up += 2 * half)
        for (int64_t k = 0; k < width; k += LANES) {
            const lanes gate = load(gate_up + k), up = load(gate_up + half + k);
            const lanes power = -larger(gate * LOG2_E, (lanes){} - 126.0f);
            store(gate_up + k, gate * up / (1.0f + exp2_of(power)));
        }
}

static inline void rotate(const float *in, const float *turn, float *out) {
    const float *cosine = turn, *sine = turn + D;
    for (int k = 0; k < D / 2; k++) {
        const float a = in[k], b = in[k + D / 2];
        out[k] = a * cosine[k] - b * sine[k];
        out[k + D / 2] = b * cosine[k] + a * sine[k];
    }
}

/* Scores of some queries against the LANES keys of a block. */
static inline __attribute__((always_inline)) void score(int queries, const float query[][D],
                                                        const float *keys, float *scores,
                                                        int64_t room) {
    lanes found[QUERIES];
    for (int q = 0; q < queries; q++) found[q] = (lanes){};
    for (int k = 0; k < D; k++) {
        const lanes key = load(keys + k * LANES);
        for (int q = 0; q < queries; q++) found[q] += key * query[q][k];
    }
    for (int q = 0; q < queries; q++) store(scores + q * room, found[q]);
}

/* Scores to weights, which add up to what is returned; `steps` is whole lanes. */
static inline float weigh(float *scores, int64_t steps) {
    lanes largest = load(scores);
    for (int64_t t = LANES; t < steps; t += LANES) largest = larger(largest, load(scores + t));
    const float peak = largest_of(largest);
    lanes sum = {};
    for (int64_t t = 0; t < steps; t += LANES) {
        const lanes power = exp2_of(load(scores + t) - peak);
        store(scores + t, power);
        sum += power;
    }
    return sum_of(sum);
}

/* Attention of the newest step of some samples of a head to their prefix and to their own tails.
 *
 * `qkv` and `out` are the head's part of the samples' rows. Queries come in units in which the
 * softmax is of powers of two.
 */
static void attend(int queries, const float *qkv, int64_t qkv_stride, int64_t width,
                   const float *turn, const float *prefix_keys, const float *prefix_values,
                   int64_t prefix, float *tails, int64_t block_stride, int64_t tail, float *scores,
                   float *out, int64_t out_stride) {
    const int64_t prefix_blocks = (prefix + LANES - 1) / LANES, prefix_room = prefix_blocks * LANES;
    const int64_t tail_blocks = (tail + LANES - 1) / LANES;
    const int64_t room = prefix_room + tail_blocks * LANES, newest = (tail - 1) % LANES;
    float *last_block = tails + (tail_blocks - 1) * block_stride;
    float query[QUERIES][D] = {}, total[QUERIES];
    head found[QUERIES];
    for (int q = 0; q < queries; q++) {
        const float *own = qkv + q * qkv_stride;
        float *keys = last_block + q * D * LANES, *values = keys + QUERIES * D * LANES;
        float key[D];
        rotate(own, turn, query[q]);
        rotate(own + width, turn, key);
        for (int k = 0; k < D; k++) keys[k * LANES + newest] = key[k];
        memcpy(values + newest * D, own + 2 * width, sizeof key);
    }
    for (int q = 0; q < QUERIES; q++) found[q] = (head){};
    for (int64_t b = 0; b < prefix_blocks; b++)
        score(QUERIES, query, prefix_keys + b * LANES * D, scores + b * LANES, room);
    for (int q = 0; q < queries; q++)
        for (int64_t b = 0; b < tail_blocks; b++)
            score(1, query + q, tails + b * block_stride + q * D * LANES,
                  scores + q * room + prefix_room + b * LANES, room);
    for (int q = 0; q < queries; q++) {
        for (int64_t t = prefix; t < prefix_room; t++) scores[q * room + t] = LOWEST;
        for (int64_t t = prefix_room + tail; t < room; t++) scores[q * room + t] = LOWEST;
        total[q] = weigh(scores + q * room, room);
    }
    for (int64_t t = 0; t < prefix; t++) {
        const head value = *(const head *)(prefix_values + t * D);
        for (int q = 0; q < QUERIES; q++) found[q] += value * scores[q * room + t];
    }
    for (int q = 0; q < queries; q++) {
        const float *weights = scores + q * room + prefix_room;
        head parts[PARTS] = {};
        for (int64_t b = 0; b < tail_blocks; b++, weights += LANES) {
            const float *values = tails + b * block_stride + (QUERIES + q) * D * LANES;
            const int64_t steps = b + 1 < tail_blocks ? LANES : newest + 1;
            for (int64_t t = 0; t < steps; t++)
                parts[t % PARTS] += *(const head *)(values + t * D) * weights[t];
        }
        *(head *)(out + q * out_stride) =
            (found[q] + (parts[0] + parts[1]) + (parts[2] + parts[3])) / total[q];
    }
}

/* Where a layer works: rows in whole panels, and scores. */
typedef struct {
    float *normed, *attended, *wide, *scores;
    int64_t width, qkv_width, half; /* of rows: the residual's, queries to values', gates' */
} Room;

/* Floats that rows and scores of `steps` steps take. */
int64_t working_room(const Shape *shape, int64_t rows, int64_t steps) {
    const int64_t width = in_panels(shape->width), qkv = in_panels(3 * shape->width);
    const int64_t gate_up = 2 * in_panels(shape->feedforward_width);
    return rows * (2 * width + (qkv > gate_up ? qkv : gate_up)) + QUERIES * (steps + 2 * LANES);
}

static Room room_of(const Shape *shape, int64_t rows, float *floats) {
    Room room = {.width = in_panels(shape->width),
                 .qkv_width = in_panels(3 * shape->width),
                 .half = in_panels(shape->feedforward_width)};
    room.normed = floats;
    room.attended = room.normed + rows * room.width;
    room.wide = room.attended + rows * room.width; /* queries to values; then gates and ups */
    const int64_t widest = room.qkv_width > 2 * room.half ? room.qkv_width : 2 * room.half;
    room.scores = room.wide + rows * widest;
    return room;
}

/* From the residual to queries, keys and values; returns the panels that come next. */
static const float *before_attention(const Shape *shape, const Room *room, const float *panels,
                                     const float *hidden, int64_t rows, Coming *coming) {
    normalise(hidden, room->width, room->normed, rows, shape->width);
    multiply(room->normed, room->width, rows, shape->width, panels, room->qkv_width, room->wide, 0,
             coming);
    return panels + shape->width * room->qkv_width;
}

/* What was attended to and SwiGLU into the residual; returns the panels that come next. */
static const float *after_attention(const Shape *shape, const Room *room, const float *panels,
                                    float *hidden, int64_t rows, Coming *coming) {
    const int64_t width = shape->width, feedforward = shape->feedforward_width;
    multiply(room->attended, room->width, rows, width, panels, room->width, hidden, 1, coming);
    panels += width * room->width;
    normalise(hidden, room->width, room->normed, rows, width);
    multiply(room->normed, room->width, rows, width, panels, 2 * room->half, room->wide, 0, coming);
    panels += width * 2 * room->half;
    swiglu(room->wide, rows, feedforward, room->half);
    multiply(room->wide, 2 * room->half, rows, feedforward, panels, room->width, hidden, 1, coming);
    return panels + feedforward * room->width;
}

static void finish(const Shape *shape, const Weights *weights, int64_t stride, float *hidden,
                   int64_t rows) {
    normalise(hidden, stride, hidden, rows, shape->width);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < shape->width; k++) hidden[r * stride + k] *= weights->final_norm[k];
}

/* Causal attention of the steps of one series in one head.
 *
 * `keys` and `values`, [step][D], are where turned keys and values are kept; `blocks`, whole blocks
 * of keys, [block][D][LANES], is to work in.
 */
static void attend_causally(const float *qkv, int64_t qkv_stride, int64_t width, const float *turns,
                            int64_t steps, float *keys, float *values, float *blocks, float *scores,
                            float *out, int64_t out_stride) {
    const int64_t room = (steps + LANES - 1) / LANES * LANES;
    memset(blocks, 0, room * D * sizeof(float));
    for (int64_t t = 0; t < steps; t++) {
        rotate(qkv + t * qkv_stride + width, turns + t * 2 * D, keys + t * D);
        memcpy(values + t * D, qkv + t * qkv_stride + 2 * width, D * sizeof(float));
        for (int k = 0; k < D; k++)
            blocks[(t / LANES * D + k) * LANES + t % LANES] = keys[t * D + k];
    }
    for (int64_t first = 0; first < steps; first += QUERIES) {
        const int queries = steps - first < QUERIES ? (int)(steps - first) : QUERIES;
        const int64_t seen = first + queries, used = (seen + LANES - 1) / LANES * LANES;
        float query[QUERIES][D] = {}, total[QUERIES];
        head found[QUERIES];
        for (int q = 0; q < QUERIES; q++) {
            found[q] = (head){};
            if (q < queries)
                rotate(qkv + (first + q) * qkv_stride, turns + (first + q) * 2 * D, query[q]);
        }
        for (int64_t b = 0; b < used / LANES; b++)
            score(QUERIES, query, blocks + b * LANES * D, scores + b * LANES, room);
        for (int q = 0; q < queries; q++) {
            for (int64_t t = first + q + 1; t < used; t++) scores[q * room + t] = LOWEST;
            total[q] = weigh(scores + q * room, used);
        }
        for (int64_t t = 0; t < first; t++) {
            const head value = *(const head *)(values + t * D);
            for (int q = 0; q < QUERIES; q++) found[q] += value * scores[q * room + t];
        }
        /* Not even a weight of next to nothing for what comes later: it may not be a number. */
        for (int q = 0; q < queries; q++)
            for (int64_t t = first; t <= first + q; t++)
                found[q] += *(const head *)(values + t * D) * scores[q * room + t];
        for (int q = 0; q < queries; q++)
            *(head *)(out + (first + q) * out_stride) = found[q] / total[q];
    }
}

/* Run whole sequences through all layers.
 *
 * `hidden`, [series][step][width in whole panels], holds embedded tokens and then what the
 * transformer makes of them. `turns` are the cosines and sines of each step. `keys` (turned) and
 * `values` are [layer][series][head][step][D]. `floats` is working room for the rows of
 * `together` series, and for a head's keys in whole blocks behind it.
 */
void run(const Shape *shape, const Weights *weights, int64_t num_series, int64_t steps,
         int64_t together, const float *turns, float *hidden, float *keys, float *values,
         float *floats) {
    const int64_t heads = shape->num_heads, per_head = steps * D;
    for (int64_t first = 0; first < num_series; first += together) {
        const int64_t series = num_series - first < together ? num_series - first : together;
        const int64_t rows = series * steps;
        const Room room = room_of(shape, rows, floats);
        float *blocks = floats + working_room(shape, rows, steps);
        float *own = hidden + first * steps * room.width;
        const float *panels = weights->panels;
        Coming none = {0};
        for (int64_t layer = 0; layer < shape->num_layers; layer++) {
            panels = before_attention(shape, &room, panels, own, rows, &none);
            for (int64_t s = 0; s < series; s++)
                for (int64_t h = 0; h < heads; h++) {
                    const int64_t place = ((layer * num_series + first + s) * heads + h) * per_head;
                    attend_causally(room.wide + s * steps * room.qkv_width + h * D, room.qkv_width,
                                    shape->width, turns, steps, keys + place, values + place,
                                    blocks, room.scores,
                                    room.attended + s * steps * room.width + h * D, room.width);
                }
            panels = after_attention(shape, &room, panels, own, rows, &none);
        }
        finish(shape, weights, room.width, own, rows);
    }
}

/* Run the newest token of each sample of each series through all layers.
 *
 * `hidden`, [series * sample][width in whole panels], holds embedded tokens and then what the
 * transformer makes of them. `turn` is the cosines and sines of the tokens' position. `tails`,
 * [block][layer][series][head][group of QUERIES samples][GROUP_BLOCK], hold `tail` steps with this
 * one; what is beyond them is not read.
 */
void decode(const Shape *shape, const Weights *weights, const Prefix *prefix, float *tails,
            int64_t tail, int64_t num_series, int64_t num_samples,
            const float *turn, float *hidden, float *floats) {
    const int64_t rows = num_series * num_samples, heads = shape->num_heads, width = shape->width;
    const int64_t groups = (num_samples + QUERIES - 1) / QUERIES;
    const int64_t prefix_room = (prefix->length + LANES - 1) / LANES * LANES;
    const int64_t num_blocks = (tail + LANES - 1) / LANES, layer_groups = num_series * heads * groups;
    const int64_t layer_stride = layer_groups * GROUP_BLOCK;
    const int64_t block_stride = shape->num_layers * layer_stride;
    const Room room = room_of(shape, rows, floats);
    /* Rows of weights that a tile runs through in a layer, so many times as there are tiles. */
    const int64_t depths = (room.width + room.qkv_width + 2 * room.half) * width / PANEL +
                           room.width * shape->feedforward_width / PANEL;
    const int64_t lines = num_blocks * layer_stride / CACHE_LINE;
    const int64_t pace = lines / (depths * (rows / TILE_ROWS + 1)) + 1;
    const float *panels = weights->panels;
    Coming coming = {0};
    for (int64_t layer = 0; layer < shape->num_layers; layer++) {
        float *own_tails = tails + layer * layer_stride;
        panels = before_attention(shape, &room, panels, hidden, rows, &coming);
        for (int64_t s = 0; s < num_series; s++)
            for (int64_t h = 0; h < heads; h++) {
                const int64_t one = (layer * num_series + s) * heads + h;
                for (int64_t n = 0; n < num_samples; n += QUERIES) {
                    const int64_t left = num_samples - n, row = s * num_samples + n;
                    attend(left < QUERIES ? (int)left : QUERIES,
                           room.wide + row * room.qkv_width + h * D, room.qkv_width, width, turn,
                           prefix->keys + one * prefix_room * D,
                           prefix->values + one * prefix->length * D, prefix->length,
                           own_tails + ((s * heads + h) * groups + n / QUERIES) * GROUP_BLOCK,
                           block_stride, tail, room.scores, room.attended + row * room.width + h * D,
                           room.width);
                }
            }
        const float *next = layer + 1 < shape->num_layers ? own_tails + layer_stride : tails;
        coming = (Coming){next, layer_groups, 0, num_blocks, block_stride, 0, pace};
        panels = after_attention(shape, &room, panels, hidden, rows, &coming);
    }
    finish(shape, weights, room.width, hidden, rows);
}
