/* Five-tuples numbered as they are first seen, both directions alike: what replay/tuples.py does with a dictionary.
 *
 * A tuple is five words: the lesser end's address, the greater end's, then ports, protocol and IP version. `words` has
 * room for every tuple that may come, `slots` (a power of two, at least twice as many) holds numbers + 1, 0 is free.
 */
#include <endian.h>
#include <stdint.h>
#include <string.h>

enum { WORDS = 5 };

static uint64_t mixed(const uint64_t *tuple, uint64_t seed)
{
    uint64_t key = seed;
    for (int at = 0; at < WORDS; at++) {
        key = (key ^ tuple[at]) * 0x9E3779B97F4A7C15u;
        key ^= key >> 29;
    }
    return key ^ key >> 32;
}

static int64_t slot_of(const uint64_t *tuple, const uint64_t *words, const int32_t *slots, uint64_t mask, uint64_t seed)
{
    uint64_t slot = mixed(tuple, seed) & mask;
    while (slots[slot] && memcmp(words + WORDS * (int64_t)(slots[slot] - 1), tuple, sizeof(uint64_t) * WORDS))
        slot = (slot + 1) & mask;
    return (int64_t)slot;
}

/* Returns how many tuples are known after these packets. */
int64_t number_tuples(int64_t rows, const uint8_t *source, const uint8_t *destination, const uint16_t *source_port,
                      const uint16_t *destination_port, const uint8_t *protocol, const uint8_t *version,
                      int64_t *numbers, uint8_t *ends, uint64_t *words, int32_t *slots, uint64_t mask, uint64_t seed,
                      int64_t count)
{
    for (int64_t row = 0; row < rows; row++) {
        uint64_t from[2], to[2], tuple[WORDS];
        memcpy(from, source + 16 * row, 16);
        memcpy(to, destination + 16 * row, 16);
        for (int at = 0; at < 2; at++) {
            from[at] = be64toh(from[at]);
            to[at] = be64toh(to[at]);
        }
        uint64_t port[2] = {source_port[row], destination_port[row]};
        int greater = from[0] != to[0] ? from[0] > to[0] : from[1] != to[1] ? from[1] > to[1] : port[0] > port[1];
        memcpy(tuple, greater ? to : from, 16);
        memcpy(tuple + 2, greater ? from : to, 16);
        tuple[4] = port[greater] << 32 | port[!greater] << 16 | (uint64_t)protocol[row] << 8 | version[row];
        int64_t slot = slot_of(tuple, words, slots, mask, seed);
        if (!slots[slot]) {
            memcpy(words + WORDS * count, tuple, sizeof tuple);
            slots[slot] = (int32_t)++count;
        }
        numbers[row] = slots[slot] - 1;
        ends[row] = (uint8_t)greater;
    }
    return count;
}

/* Fills empty slots with the tuples that are known. */
void place_tuples(int64_t count, const uint64_t *words, int32_t *slots, uint64_t mask, uint64_t seed)
{
    for (int64_t number = 0; number < count; number++)
        slots[slot_of(words + WORDS * number, words, slots, mask, seed)] = (int32_t)(number + 1);
}

/* The rows by number, those of one number in their order; `begins` has a zero for every number and one more. */
void rows_by_number(int64_t rows, const int64_t *numbers, int64_t count, int64_t *begins, int64_t *order)
{
    for (int64_t row = 0; row < rows; row++)
        begins[numbers[row] + 1]++;
    for (int64_t number = 0; number < count; number++)
        begins[number + 1] += begins[number];
    for (int64_t row = 0; row < rows; row++)
        order[begins[numbers[row]]++] = row;
}
