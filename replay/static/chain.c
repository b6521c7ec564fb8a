/* Records that each say where the next begins, followed in several stretches of a buffer side by side, so that the
 * processor waits for many of them at once: what replay/capture/chain.py does with whole columns.
 */
#include <stdint.h>
#include <string.h>

/* Follows lane i from at[i] as long as it is before stops[i], and leaves there the first position that is not.
 *
 * Lane i's positions begin at positions[i * room]; there are counts[i] of them, at most `room`. The caller promises
 * that `length_at` + 4 octets can be read at every position before any stop. A step is `least` octets at least, 1 or
 * more, so that it ends.
 */
void follow_lanes(const uint8_t *data, int64_t lanes, int64_t *at, const int64_t *stops, int64_t length_at,
                  int64_t added, int64_t least, int swapped, int64_t *positions, int64_t room, int64_t *counts)
{
    for (int64_t moved = 1; moved;) {
        moved = 0;
        for (int64_t lane = 0; lane < lanes; lane++) {
            if (at[lane] >= stops[lane] || counts[lane] == room)
                continue;
            uint32_t length;
            memcpy(&length, data + at[lane] + length_at, sizeof length);
            if (swapped)
                length = __builtin_bswap32(length);
            positions[lane * room + counts[lane]++] = at[lane];
            int64_t octets = added + (int64_t)length;
            at[lane] += octets > least ? octets : least;
            if (at[lane] < stops[lane])
                __builtin_prefetch(data + at[lane] + length_at);
            moved = 1;
        }
    }
}
