/* Who waits for which request. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "intake/waits.h"

struct waiter {
    struct wait wait; /* first */
    struct waits *table;
    struct waiter *takes_along; /* leaves the table when this one is notified */
    unsigned notified;
    char line[32];
};

static void on_notify(struct wait *wait, const char *line, size_t len)
{
    struct waiter *waiter = (struct waiter *) wait;
    waiter->notified++;
    (void) snprintf(waiter->line, sizeof(waiter->line), "%.*s", (int) len,
                    line != NULL ? line : "");
    if (waiter->takes_along != NULL)
        waits_remove(waiter->table, &waiter->takes_along->wait);
}

static void add(struct waits *table, struct waiter *waiter, const char *request_id)
{
    *waiter = (struct waiter){ .wait.notify = on_notify, .table = table };
    assert_int_equal(waits_add(table, &waiter->wait, request_id), 0);
}

static void everyone_who_waits_for_it_and_nobody_else(void **state)
{
    struct waits table;
    struct waiter a, also_a, b;
    (void) state;
    assert_int_equal(waits_init(&table), 0);
    waits_settle(&table, "a", "too early", 9);
    add(&table, &a, "a");
    add(&table, &also_a, "a");
    add(&table, &b, "b");

    waits_settle(&table, "c", "{}", 2);
    waits_settle(&table, "a", "{1}", 3);
    waits_settle(&table, "a", "{2}", 3);
    assert_int_equal(a.notified, 1);
    assert_string_equal(a.line, "{1}");
    assert_int_equal(also_a.notified, 1);
    assert_int_equal(b.notified, 0);
    assert_int_equal(table.n, 1);
    waits_remove(&table, &b.wait);
    waits_remove(&table, &b.wait);
    assert_int_equal(table.n, 0);
    waits_finish(&table);
}

static void notifying_may_take_others_out(void **state)
{
    struct waits table;
    struct waiter first, second;
    (void) state;
    assert_int_equal(waits_init(&table), 0);
    add(&table, &first, "a");
    add(&table, &second, "a");
    first.takes_along = &second;
    second.takes_along = &first;
    waits_settle(&table, "a", "{}", 2);
    assert_int_equal(first.notified + second.notified, 1);

    add(&table, &first, "a");
    add(&table, &second, "b");
    first.takes_along = &second;
    second.takes_along = &first;
    waits_release(&table);
    assert_int_equal(first.notified + second.notified, 1);
    assert_int_equal(table.n, 0);
    waits_finish(&table);
}

static void many(void **state)
{
    enum { N = 5000 };
    static struct waiter waiters[N];
    struct waits table;
    char request_id[16];
    (void) state;
    assert_int_equal(waits_init(&table), 0);
    for (int i = 0; i < N; i++) {
        (void) snprintf(request_id, sizeof(request_id), "r%d", i);
        add(&table, &waiters[i], request_id);
    }
    for (int i = 0; i < N; i += 2) {
        (void) snprintf(request_id, sizeof(request_id), "r%d", i);
        waits_settle(&table, request_id, request_id, strlen(request_id));
        assert_string_equal(waiters[i].line, request_id);
    }
    assert_int_equal(table.n, N / 2);
    waits_release(&table);
    for (int i = 0; i < N; i++)
        assert_int_equal(waiters[i].notified, 1);
    assert_int_equal(table.n, 0);
    waits_finish(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everyone_who_waits_for_it_and_nobody_else),
        cmocka_unit_test(notifying_may_take_others_out),
        cmocka_unit_test(many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
