/* journey.pml - where may a guest be started that has been moved about between hosts? README.md.
 *
 * A move here is few steps, for commit.pml has the rest: prepared, released, started or aborted, ended,
 * forgotten. What is looked at is what stays after the move: the marks "moved to" and "arriving from",
 * and how a start asks along them. Who asks is answered
 *     gone    no guest, no definition, no job and no reservation there; and the host that answers has
 *             written "moved to <asker>" first (a claim), so that it must ask back from now on;
 *     here    else; where nobody answers, the start is refused, too.
 * A host that has nothing but a mark of its own, of either kind, asks on, its place reserved meanwhile. */

#define TWO_RUN   1 /* two copies run */
#define STUCK     2 /* one definition, no guest, all up: but it cannot be started */
#define LEFT_OVER 3 /* a record or "arriving from" is left at the end */
#define OWNER     4 /* where the guest runs there is a mark "moved to", so that a later start has to ask */

#define claim_missing     1  /* gone is answered without a claim */
#define claim_late        2  /* or the claim is written after the answer */
#define relay_unreserved  3  /* a host that asks on does not reserve its place meanwhile */
#define start_unreserved  4  /* a host that asks for a start of its own does not */
#define mark_missing      5  /* the source does not write "moved to" */
#define mark_late         6  /* or after its job was closed */
#define return_marked     7  /* coming back does not clear "moved to" */
#define own_mark_relayed  8  /* a mark that points to the asker is followed */
#define no_arriving       9  /* what arrived may be started before the source has ended */
#define forget_any        10 /* forget clears "arriving from", of whatever job it is */
#define undefine_unmarks  11 /* undefining removes the mark, too */
#define no_relay          12 /* a mark to a third host is taken for "gone" */
#define taken_unmarked    13 /* --here: B gives its copy up, but does not write "moved to A" */
#define arriving_only     14 /* with the source's word that it has ended, "moved to" is not looked at */
#define arriving_unasked  15 /* who has nothing but "arriving from" does not ask on */
#define arriving_replaced 16 /* a guest may arrive where it is "arriving from" another host */
#define condemn_any       17 /* --here: B gives up what is there, however it has come */

#ifndef REPLAY
c_decl {
    \#include <stdlib.h>
    static unsigned char setting(const char *name)
    {
        const char *text = getenv(name);
        return text ? (unsigned char)atoi(text) : 0;
    }
}
hidden byte only, mutation;
hidden byte hosts;       /* 2 or 3 */
hidden byte moves_max, starts_max, users_max; /* users: shut down, define, undefine */
hidden byte crashes_max, losses_max;
#define READ_SETTINGS c_code { \
    only = setting("only"); mutation = setting("mutation"); hosts = setting("hosts"); \
    moves_max = setting("moves_max"); starts_max = setting("starts_max"); \
    users_max = setting("users_max"); crashes_max = setting("crashes_max"); \
    losses_max = setting("losses_max"); }
#else
#define READ_SETTINGS skip
#endif
#define CHECK(property, what) assert((only != 0 && only != property) || (what))
#define H 3 /* hosts that there is room for */
#define NOBODY 3

mtype = { no_record, none, released, resolved_here, ended, prepared, started, aborted };
mtype = { idle, waiting, Gone, Here };

/* Durable. */
bit def[H], visited[H];
byte moved_to[H], arriving_from[H];
mtype rec_out[H];               /* the record of the job that left, which is one at a time */
byte out_to[H];
mtype rec_in[H * H];            /* those of the jobs that came: at K from H */
#define AT_FROM(k, h) rec_in[(k) * H + (h)]
/* The copies. */
bit guest[H], held[H];          /* runs; stands paused, released */
/* Not durable. */
bit up[H], reserved[H], asked_on[H];
mtype reply[H];                 /* to the question of this host */
byte askee[H], relay_for[H], owes[H]; /* owes: to whom it has yet to say "gone" */
bit must_start[H], marking[H];
byte cut = NOBODY;              /* the host that the others cannot reach */
byte moves, starts, users, crashes, losses;
bit calm, judging;

#define linked(h, k) (cut != (h) && cut != (k))
#define reach(h, k)  (up[h] && up[k] && linked(h, k))
#define arrives(k)   (AT_FROM(k, 0) == prepared || AT_FROM(k, 1) == prepared || AT_FROM(k, 2) == prepared)
#define job(h)       (rec_out[h] == none || rec_out[h] == released || arrives(h))
#define here(k)      (guest[k] || held[k] || def[k] || job(k) || reserved[k])
#define running      (guest[0] + guest[1] + guest[2])

#define source_ended(h) (reach(h, arriving_from[h]) && out_to[arriving_from[h]] == h && \
                         rec_out[arriving_from[h]] == ended)

/* Whom it asks that has nothing else. */
#define mark(k) (moved_to[k] != NOBODY || mutation == arriving_unasked -> moved_to[k] : arriving_from[k])

inline claim(x, to) { moved_to[x] = to; arriving_from[x] = NOBODY }
inline run_at(h) { CHECK(TWO_RUN, running - guest[h] == 0); guest[h] = 1; visited[h] = 1 }
inline end_asking(h)
{
    reply[h] = idle; askee[h] = NOBODY; relay_for[h] = NOBODY; reserved[h] = 0; asked_on[h] = 0
}
/* Connections to and from h break. Who waits for an answer knows that none will come. */
inline break_connections(h)
{
    for (x : 0 .. 2) {
        if :: reply[x] == waiting && asked_on[x] && (x == h || askee[x] == h) -> reply[x] = Here :: else fi
    }
    x = 0
}
/* Also to a question that its asker has given up since: that of a later one may get it. */
inline answer(x, what) { if :: reply[x] == waiting -> reply[x] = what :: else fi }

/* What one host does by itself. */
proctype Host(byte h)
{
end: do
    :: atomic { !up[h] -> up[h] = 1;
           if :: arrives(h) -> AT_FROM(h, arriving_from[h]) = aborted; arriving_from[h] = NOBODY :: else fi }
    /* virsh start, autostart, Pacemaker */
    :: atomic { up[h] && (starts > 0 || must_start[h]) && def[h] && !guest[h] && !held[h] && !job(h) && !reserved[h] &&
           reply[h] == idle && !marking[h] ->
           if :: must_start[h] -> must_start[h] = 0 :: else -> starts-- fi;
           if :: arriving_from[h] != NOBODY && mutation != no_arriving && !source_ended(h) -> skip /* refused */
              :: else ->
                 if :: moved_to[h] == NOBODY || (mutation == arriving_only && arriving_from[h] != NOBODY) -> run_at(h)
                    :: else -> reply[h] = waiting; askee[h] = moved_to[h];
                       if :: mutation != start_unreserved -> reserved[h] = 1 :: else fi
                 fi
           fi }
    /* it is answered */
    :: atomic { up[h] && relay_for[h] == NOBODY && reply[h] == Gone -> end_asking(h);
           if :: !guest[h] && !held[h] && !job(h) -> moved_to[h] = NOBODY; run_at(h) :: else fi }
    :: atomic { up[h] && relay_for[h] == NOBODY && reply[h] == Here -> end_asking(h) }
    :: atomic { up[h] && relay_for[h] != NOBODY && reply[h] == Gone && owes[h] == NOBODY ->
           owes[h] = relay_for[h];
           if :: mutation == claim_missing || mutation == claim_late :: else -> claim(h, relay_for[h]) fi }
    :: atomic { up[h] && relay_for[h] != NOBODY && reply[h] == Here ->
           answer(relay_for[h], Here); end_asking(h) }
    :: atomic { up[h] && owes[h] != NOBODY -> answer(owes[h], Gone);
           if :: mutation == claim_late -> marking[h] = 1 :: else -> owes[h] = NOBODY fi;
           if :: relay_for[h] != NOBODY -> end_asking(h) :: else -> reserved[h] = 0 fi }
    :: atomic { up[h] && marking[h] && owes[h] != NOBODY -> claim(h, owes[h]); owes[h] = NOBODY; marking[h] = 0 }
    /* nobody answers */
    :: atomic { up[h] && reply[h] == waiting && (!reach(h, askee[h]) || losses > 0) ->
           if :: reach(h, askee[h]) -> losses-- :: else fi;
           if :: relay_for[h] != NOBODY -> answer(relay_for[h], Here) :: else fi;
           end_asking(h) }
    od
}

/* What h does to k: it asks, and it moves its guest there. */
proctype Pair(byte h, k)
{
end: do
    :: atomic { reach(h, k) && reply[h] == waiting && askee[h] == k && !asked_on[h] ->
           if :: here(k) || owes[k] != NOBODY || reply[k] != idle -> answer(h, Here)
              :: else ->
                 if :: mark(k) == NOBODY || (mark(k) == h && mutation != own_mark_relayed) || mutation == no_relay ->
                       owes[k] = h; asked_on[h] = 1; reserved[k] = 1;
                       if :: mutation == claim_missing || mutation == claim_late :: else -> claim(k, h) fi
                    :: else -> asked_on[h] = 1; relay_for[k] = h;
                       reply[k] = waiting; askee[k] = mark(k); asked_on[k] = 0;
                       if :: mutation != relay_unreserved -> reserved[k] = 1 :: else fi
                 fi
           fi }
    :: atomic { moves > 0 && reach(h, k) && guest[h] && rec_out[h] == no_record && !job(h) && !guest[k] && !held[k] &&
           !job(k) && !reserved[k] && (arriving_from[k] == NOBODY || mutation == arriving_replaced) -> moves--;
           rec_out[h] = none; out_to[h] = k; AT_FROM(k, h) = prepared; arriving_from[k] = h }
    :: atomic { up[h] && out_to[h] == k && rec_out[h] == none && guest[h] && reach(h, k) && AT_FROM(k, h) == prepared ->
           rec_out[h] = released; guest[h] = 0; held[h] = 1 }
    :: atomic { up[h] && out_to[h] == k && rec_out[h] == none && (!guest[h] || !reach(h, k) || AT_FROM(k, h) != prepared) ->
           rec_out[h] = ended }
    /* B's record decides */
    :: atomic { up[k] && AT_FROM(k, h) == prepared && rec_out[h] == released && out_to[h] == k ->
           if :: AT_FROM(k, h) = started; run_at(k);
                 if :: def[k] = 1 :: skip fi; /* persistent there, or not */
                 if :: mutation != return_marked -> moved_to[k] = NOBODY :: else fi
              :: AT_FROM(k, h) = aborted; arriving_from[k] = NOBODY
           fi }
    :: atomic { reach(h, k) && out_to[h] == k && rec_out[h] == released && AT_FROM(k, h) == aborted ->
           if :: held[h] -> run_at(h) :: else fi; held[h] = 0; rec_out[h] = ended }
    :: atomic { reach(h, k) && out_to[h] == k && rec_out[h] == released && AT_FROM(k, h) == started && !marking[h] &&
           moved_to[h] != k && mutation != mark_late && mutation != mark_missing -> claim(h, k) }
    :: atomic { reach(h, k) && out_to[h] == k && rec_out[h] == released && AT_FROM(k, h) == started && !marking[h] &&
           (moved_to[h] == k || mutation == mark_late || mutation == mark_missing) ->
           held[h] = 0; rec_out[h] = ended;
           if :: def[h] = 0 :: skip fi; /* undefined at the source, or not */
           if :: mutation == mark_late -> marking[h] = 1 :: else fi }
    /* `vz resolve --here`: what the operator says is true, that no copy is left there and none went on
     * from there since. B hears it later. */
    :: atomic { up[h] && out_to[h] == k && rec_out[h] == released && held[h] && !marking[h] && !up[k] && running == 0 &&
           (arriving_from[k] == h || AT_FROM(k, h) == aborted) && rec_out[k] == no_record ->
           rec_out[h] = resolved_here; moved_to[h] = NOBODY; held[h] = 0; run_at(h) }
    :: atomic { reach(h, k) && out_to[h] == k && rec_out[h] == resolved_here && !reserved[k] ->
           rec_out[h] = ended;
           if :: arriving_from[k] == h || mutation == condemn_any -> CHECK(TWO_RUN, !guest[k]); def[k] = 0;
                 if :: AT_FROM(k, h) == started && mutation != taken_unmarked -> moved_to[k] = h :: else fi
              :: else /* nothing of it has been left there */
           fi;
           AT_FROM(k, h) = aborted }
    :: atomic { up[h] && out_to[h] == k && marking[h] && mutation == mark_late -> moved_to[h] = k; marking[h] = 0 }
    :: atomic { reach(h, k) && out_to[h] == k && rec_out[h] == ended && !marking[h] ->
           if :: AT_FROM(k, h) == prepared -> AT_FROM(k, h) = aborted; arriving_from[k] = NOBODY
              :: else fi;
           AT_FROM(k, h) = no_record;
           if :: arriving_from[k] == h || mutation == forget_any -> arriving_from[k] = NOBODY :: else fi;
           rec_out[h] = no_record; out_to[h] = NOBODY }
    od
}

/* Users, and faults. */
proctype World(byte h)
{
    byte x;
end: do
    :: atomic { !judging && users > 0 && up[h] && guest[h] && !job(h) -> users--; guest[h] = 0 }
    :: atomic { !judging && users > 0 && up[h] && !def[h] && visited[h] && !job(h) -> users--; def[h] = 1 }
    :: atomic { !judging && users > 0 && up[h] && def[h] && !job(h) && !reserved[h] -> users--; def[h] = 0;
           if :: mutation == undefine_unmarks -> moved_to[h] = NOBODY :: else fi }
    :: atomic { !judging && crashes > 0 && up[h] -> crashes--; break_connections(h);
           up[h] = 0; end_asking(h); owes[h] = NOBODY; marking[h] = 0;
           if :: guest[h] = 0; held[h] = 0 :: skip fi /* the host, or only its daemon */ }
    :: atomic { !judging && losses > 0 && cut == NOBODY -> losses--; cut = h; break_connections(h) }
    :: atomic { cut == h -> cut = NOBODY }
    :: atomic { !judging && !calm -> calm = 1; users = 0; crashes = 0; losses = 0; starts = 0; moves = 0 }
    od
}

#define only_def(h) (def[h] && def[0] + def[1] + def[2] == 1)
proctype Judge()
{
    byte h;
    atomic { timeout -> judging = 1; assert(cut == NOBODY);
        for (h : 0 .. 2) {
            CHECK(LEFT_OVER, rec_out[h] == no_record && AT_FROM(h, 0) == no_record && AT_FROM(h, 1) == no_record &&
                  AT_FROM(h, 2) == no_record && arriving_from[h] == NOBODY && !held[h]);
            CHECK(OWNER, !guest[h] || moved_to[h] == NOBODY);
            if :: running == 0 && only_def(h) -> must_start[h] = 1 :: else fi
        } }
    atomic { timeout ->
        for (h : 0 .. 2) { CHECK(STUCK, running > 0 || !only_def(h)) } }
}

init
{
    byte h;
    atomic {
        READ_SETTINGS;
        moves = moves_max; starts = starts_max; users = users_max; crashes = crashes_max; losses = losses_max;
        for (h : 0 .. 2) {
            moved_to[h] = NOBODY; arriving_from[h] = NOBODY; out_to[h] = NOBODY;
            askee[h] = NOBODY; relay_for[h] = NOBODY; owes[h] = NOBODY;
            rec_out[h] = no_record; reply[h] = idle; up[h] = 1
        }
        for (h : 0 .. 8) { rec_in[h] = no_record }
        def[0] = 1; guest[0] = 1; visited[0] = 1;
        run Host(0); run Host(1); run World(0); run World(1); run Pair(0, 1); run Pair(1, 0);
        if :: hosts == 3 -> run Host(2); run World(2); run Pair(0, 2); run Pair(2, 0); run Pair(1, 2); run Pair(2, 1) :: else fi;
        run Judge(); h = 0
    }
}
