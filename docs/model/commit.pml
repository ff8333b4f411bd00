/* commit.pml - one move of one guest from host A to host B: who runs it? README.md explains.
 *
 * Guarded commands: each `atomic` is one thing that happens at once, to its left the condition under
 * which it may. Whoever can do something may do it next; spin tries every order. Names in the first
 * mtype are the words of the journal (src/migrate/journal.h). A crash is possible between any two
 * commands, and a write to a journal is two of them. */

/* What is checked. `only` = one of these: the others are not looked at. */
#define TWO_RUN   1 /* both copies run */
#define OLD_RUN   2 /* one goes on with a guest that has run at the other meanwhile */
#define NONE_RUN  3 /* none is left, and no last copy had died by itself */
#define DOUBT     4 /* in doubt without a cause, or nobody can end the doubt */
#define ABORTED   5 /* answered "aborted", and committed after all, or the other way round, or not gone yet */
#define LEFT_OVER 6 /* at the end a record, a mark or a paused copy is left */
#define SUCCESS   7 /* without a fault the guest does not move, or is not defined at B afterwards */
#define CAUSE     8 /* A's copy is ended though nobody said that the guest has run at B */

/* Mutations: each removes one rule, and must break one of the above. */
#define no_fsync           1  /* "released" is written, not synced */
#define resume_unasked     2  /* Confirm(cancelled), a lost client, a restart: A resumes at once */
#define no_tombstone       3  /* "aborted" is answered, not recorded */
#define end_on_wait        4  /* A ends its copy on "wait" */
#define persist_late       5  /* defined after the commit */
#define cont_first         6  /* vCPUs start before "committed" is durable */
#define no_attempt         7  /* "start-attempted" is not written */
#define mark_late          8  /* "moved to B" is written after the job is closed */
#define mark_missing       9  /* or never */
#define lost_aborted       10 /* no record: answered "aborted" */
#define forget_early       11 /* B forgets before A's end is durable */
#define never_revoke       12 /* committed and dead stays "wait" */
#define ask_early          13 /* A asks straight after the release */
#define released_late      14 /* "released" is written after letting go */
#define no_proof           15 /* B commits without the proof of the release */
#define torn_kept          16 /* half a line stays, and the next one joins it */
#define load_unsynced      17 /* what a restart reads is trusted before it is synced */
#define answer_early       18 /* "aborted" is answered before B's copy is gone */
#define no_arriving        19 /* B's definition can be started before A has ended */
#define no_taken_back      20 /* A resumes without writing "taken-back" */
#define postcopy_forward   21 /* B commits a package without A's word that it cannot go back */
#define postcopy_end       22 /* A is ended before all pages have come */
#define here_first         23 /* --here: B's later --there is overruled when B is told */
#define client_decides     24 /* B gives up what has come whole when its client goes or cancels */
#define lost_resumable     25 /* a QEMU that has let go, and no record of it: users may resume it */
#define attempt_unsynced   26 /* "start-attempted" is written, not synced */
#define there_unforgotten  27 /* after --there, B does not forget "start-attempted" */
#define alone_unproved     28 /* B goes on with it then, without A's word that its copy is dead */
#define here_marked        29 /* --here leaves A's mark "moved to B" */
#define abort_uncut        30 /* post-copy: B gives up without cutting the stream first */
#define ask_switching      31 /* post-copy: A asks while its QEMU may still go either way */
#define dead_guessed       32 /* A says that its copy is dead, of one that may have gone on before it died */

/* Settings, of the table in tests/model/test_model.py. For a counterexample that spin itself can
 * show they are given by -D (REPLAY); else by the environment, so that one compilation does for all. */
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
hidden byte crashes_max, losses_max, starts_max; /* how many of these happen, at most */
hidden byte p2p;       /* the client is A's daemon */
hidden byte postcopy;  /* the guest is switched before its memory has come */
hidden byte stay;      /* it is to be left paused at B */
hidden byte early;     /* the client calls Finish(0) before Perform has answered */
hidden byte decides;   /* an operator uses `vz resolve` */
hidden byte forgetful; /* A may lose its records, too */
#define READ_SETTINGS c_code { \
    only = setting("only"); mutation = setting("mutation"); \
    crashes_max = setting("crashes_max"); losses_max = setting("losses_max"); \
    starts_max = setting("starts_max"); p2p = setting("p2p"); postcopy = setting("postcopy"); \
    stay = setting("stay"); early = setting("early"); decides = setting("decides"); \
    forgetful = setting("forgetful"); }
#else
#define READ_SETTINGS skip
#endif
#define CHECK(property, what) assert((only != 0 && only != property) || (what))

mtype = { no_record, none, released, taken_back, resolved_here, resolved_there, ended,
          prepared, loaded, committed, start_attempted, started, aborted };
/* The copies. A's QEMU: `paused` before the switchover, whole; `device` while the last state is on
 * its way, when QEMU starts the guest again by itself if the stream fails; `postmigrate` after
 * QEMU's "completed". B's: `incoming`, `arrived` (loaded, not started), `standing` (left paused). */
mtype = { running, paused, device, postmigrate, postcopy_active, postcopy_paused,
          incoming, arrived, standing, dead };
/* What an actor is doing; it does not outlive its daemon. */
mtype = { idle, performing, holding, letting_go, switching, performed, asking, going_back, marking,
          killing, closing, closed_unmarked, restarting,
          persisting, committing };
mtype = { Ok, Err, Answer_aborted, Answer_wait, Answer_running, Answer_unknown };
/* The client's next move. */
mtype = { c_perform, c_performing, c_finish, c_finishing, c_confirm, c_confirm_cancelled,
          c_finish_cancelled, c_done };

/* Durable. A record is what the daemon reads (`rec`); what outlives the host (`disk`) lags behind
 * while a line is being written (`pen`, 0: none). */
mtype recA = none, diskA = none, recB = prepared, diskB = prepared;
bit mark;         /* A: "moved to B" */
bit defB;         /* the guest is defined at B */
bit arriving = 1; /* B: "arriving from A": not to be started by users */
bit probed;       /* B has answered the probe */
bit sent;         /* A has seen "completed", so that its copy cannot go on by itself; not synced */

mtype qemuA = running, qemuB = incoming;
bit pages;        /* post-copy: all memory has come */

/* Not durable. */
mtype penA, penB, doA = idle, doB = idle, client = c_perform;
bit upA = 1, upB = 1, link = 1, stream = 1, clientUp = 1, connA = 1, connB = 1;
mtype performed_with, finish_call, finish_reply, confirm_call; /* 0: none */
bit cookie, proofB;      /* Perform's cookie with the proof: at the client, at B */
bit asked, news = 1, doubt, tornA, tornB, finishing;
chan question = [2] of { bit }; /* late and repeated ones, too; true: "my QEMU cannot go back", or is dead */
chan answer = [1] of { mtype };
byte crashes, losses, starts;

/* For the properties only. */
bit ever, died, said_aborted, hereA, thereA, thereB, lostA, lostB, calm, back, went_on, kept;

#define quiet (crashes_max == 0 && losses_max == 0)
#define eof   (!clientUp || client == c_done)
#define ableA (upA && penA == 0)
#define ableB (upB && penB == 0)
#define reach (link && upA && upB)
#define goneB (qemuB == dead && !defB)
#define whole (qemuB == arrived && (!postcopy || pages))
/* After the post-copy switch has been acknowledged A cannot go back. */
#define no_way_back (postcopy && (qemuA == postcopy_active || qemuA == postcopy_paused || \
                     qemuA == postmigrate))
/* B has a package and no word: only A knows whether it can go back. */
#define package (postcopy && qemuB == arrived && mutation != postcopy_forward)
/* What has come whole is kept until A asks: A has let it go, and may have died. */
#define gives_up (qemuB != arrived || (mutation == client_decides && !postcopy))

inline run_at_A()
{
    CHECK(TWO_RUN, qemuB != running && qemuB != standing);
    if :: qemuB == arrived -> went_on = 1 :: else fi;
    qemuA = running
}
inline run_at_B()
{
    CHECK(TWO_RUN, qemuA != running);
    CHECK(OLD_RUN, !went_on || thereB);
    if :: stay -> qemuB = standing :: else -> qemuB = running fi;
    ever = 1; news = 1
}
inline write_A(what) { penA = what }
inline write_B(what)
{
    if :: what == committed -> CHECK(ABORTED, !said_aborted) :: else fi;
    penB = what
}
/* A package could arrive, and A's QEMU be told so, while B gives up: B cuts the stream, looks (the
 * condition `package` of its callers), and then writes. */
inline abort_B()
{
    if :: postcopy && mutation != abort_uncut && qemuB != dead -> stream = 0 :: else fi;
    write_B(aborted)
}
inline say(what)
{
    if :: nfull(answer) -> answer!what :: full(answer) -> asked = 0 fi;
    if :: what == Answer_aborted -> said_aborted = 1;
          CHECK(ABORTED, recB != committed && recB != start_attempted && recB != started)
       :: else fi
}

proctype Client()
{
end: do
    :: atomic { clientUp && client == c_perform && connA && ableA && doA == idle && recA == none ->
           doA = performing; client = c_performing }
    :: atomic { clientUp && client == c_perform && (!connA || recA != none) -> client = c_finish_cancelled }
    :: atomic { clientUp && client == c_performing && performed_with == Ok -> cookie = 1; client = c_finish }
    :: atomic { clientUp && client == c_performing && (performed_with == Err || !connA) ->
           client = c_finish_cancelled }
    :: atomic { clientUp && early && client == c_performing && connB && (!p2p || link) ->
           finish_call = Ok; client = c_finishing }
    :: atomic { clientUp && client == c_finish && connB && (!p2p || link) ->
           finish_call = Ok; proofB = cookie; client = c_finishing }
    :: atomic { clientUp && client == c_finish && (!connB || (p2p && !link)) -> client = c_confirm_cancelled }
    :: atomic { clientUp && client == c_finishing && finish_reply == Ok -> client = c_confirm }
    :: atomic { clientUp && client == c_finishing && (finish_reply == Err || !connB || (p2p && !link)) ->
           client = c_confirm_cancelled }
    :: atomic { clientUp && client == c_confirm ->
           if :: connA -> confirm_call = Ok :: else fi; client = c_done }
    :: atomic { clientUp && client == c_confirm_cancelled ->
           if :: connA -> confirm_call = Err :: else fi; client = c_done }
    :: atomic { clientUp && client == c_finish_cancelled ->
           if :: connB && (!p2p || link) -> finish_call = Err :: else fi; client = c_done }
    od
}

inline give_up_A() /* before the release A decides alone */
{
    if :: qemuA == paused -> run_at_A() :: else fi;
    performed_with = Err; doA = closing
}

proctype Source()
{
    mtype said; bit cannot;
end: do
    :: atomic { !upA -> upA = 1; doA = restarting; if :: mutation != load_unsynced -> diskA = recA :: else fi }
    :: atomic { upA && penA != 0 ->
           recA = penA;
           if :: mutation == no_fsync && penA == released :: else -> diskA = penA fi;
           if :: mutation == torn_kept && tornA -> recA = no_record; diskA = no_record; tornA = 0 :: else fi;
           penA = 0 }
    /* Perform */
    :: atomic { ableA && doA == performing && qemuA == running && reach && stream && qemuB == incoming &&
           recB == prepared && penB == 0 -> probed = 1; qemuA = paused; doA = holding }
    :: atomic { ableA && doA == idle && recA == none && eof -> doA = closing }
    :: atomic { ableA && (doA == performing || doA == holding) && (eof || !reach || !stream ||
           qemuA == dead || qemuB == dead || recB != prepared || penB != 0) -> give_up_A() }
    :: atomic { ableA && doA == holding ->
           if :: mutation == released_late :: else -> write_A(released) fi; doA = letting_go }
    :: atomic { ableA && doA == letting_go ->
           if :: qemuA == paused -> qemuA = device :: else fi; doA = switching }
    :: atomic { ableA && doA == switching && recA == none && mutation == released_late -> write_A(released) }
    :: atomic { ableA && doA == switching && recA == released && (qemuA == postmigrate || no_way_back) ->
           performed_with = Ok; doA = performed; sent = 1;
           if :: mutation == ask_early -> doA = asking :: else fi }
    :: atomic { ableA && doA == switching && recA == released && (qemuA == running || qemuA == paused || qemuA == dead) ->
           performed_with = Err; doA = asking }
    /* after the release B's record decides */
    :: atomic { ableA && doA == performed && (confirm_call != 0 || eof) ->
           if :: mutation == resume_unasked && confirm_call != Ok -> write_A(taken_back); doA = going_back
              :: else -> doA = asking fi; confirm_call = 0 }
    :: atomic { ableA && doA == asking && !asked && news && link && nfull(question) && nfull(answer) &&
           (!postcopy || qemuA != device || mutation == ask_switching) ->
           cannot = (no_way_back || (qemuA == dead && (sent || mutation == dead_guessed)));
           question!cannot; cannot = 0; asked = 1; news = 0 }
    :: atomic { ableA && link && len(answer) > 0 -> answer?said; asked = 0;
           if :: doA != asking || recA != released
              :: else ->
                 if :: said == Answer_aborted -> doA = going_back;
                       if :: mutation == no_taken_back :: else -> write_A(taken_back) fi
                    :: said == Answer_running && (!postcopy || pages || qemuA == dead || qemuB == dead ||
                           mutation == postcopy_end) -> doA = marking
                    :: said == Answer_running && !(!postcopy || pages || qemuA == dead || qemuB == dead ||
                           mutation == postcopy_end) -> skip
                    :: said == Answer_wait -> if :: mutation == end_on_wait -> doA = marking :: else fi
                    :: said == Answer_unknown -> doubt = 1
                 fi
           fi; said = 0 }
    :: atomic { ableA && doA == going_back ->
           CHECK(OLD_RUN, !ever || hereA);
           CHECK(ABORTED, hereA || goneB || qemuA == dead); back = 1;
           if :: qemuA == paused || qemuA == postmigrate || qemuA == device -> run_at_A()
              :: qemuA == postcopy_active || qemuA == postcopy_paused -> CHECK(NONE_RUN, died); qemuA = dead
              :: else fi;
           performed_with = Err; doubt = 0;
           if :: recA == resolved_here -> doA = idle :: else -> doA = closing fi }
    :: atomic { ableA && doA == marking -> doA = killing;
           if :: mutation == mark_late || mutation == mark_missing :: else -> mark = 1 fi;
           if :: mutation == forget_early && reach && penB == 0 && recB == started ->
                 recB = no_record; diskB = no_record; arriving = 0; news = 1
              :: else fi }
    :: atomic { ableA && doA == killing ->
           CHECK(CAUSE, ever || thereA || thereB);
           CHECK(NONE_RUN, !postcopy || pages || qemuB == dead || qemuA == dead);
           qemuA = dead; doubt = 0; doA = closing }
    :: atomic { ableA && doA == closing && recA != ended -> write_A(ended);
           if :: mutation == mark_late -> doA = closed_unmarked :: else -> doA = idle fi }
    :: atomic { ableA && doA == closing && recA == ended -> doA = idle }
    :: atomic { ableA && doA == closed_unmarked -> if :: ever -> mark = 1 :: else fi; doA = idle }
    /* errands, until B has heard */
    :: atomic { ableA && doA == idle && recA == ended && reach && penB == 0 && (recB == prepared || recB == loaded) ->
           write_B(aborted) }
    :: atomic { ableA && doA == idle && recA == ended && reach && penB == 0 && doB == idle &&
           (recB == started || recB == no_record || (recB == aborted && goneB) ||
            (thereA && (recB == start_attempted || recB == committed) && mutation != there_unforgotten)) ->
           recA = no_record; diskA = no_record; recB = no_record; diskB = no_record; arriving = 0 }
    :: atomic { ableA && doA == idle && recA == resolved_here && reach && penB == 0 && doB == idle ->
           if :: recB == no_record || (recB == aborted && goneB) -> doA = closing
              :: recB == started && thereB && mutation != here_first -> thereA = 1; write_A(resolved_there); doA = marking
              :: recB == aborted && !goneB
              :: else -> CHECK(NONE_RUN, qemuB != running && qemuB != standing); write_B(aborted)
           fi }
    /* restart */
    :: atomic { ableA && doA == restarting ->
           if :: recA == none -> if :: qemuA == paused || qemuA == device || (qemuA == postmigrate) -> run_at_A() :: else fi;
                 doA = closing
              :: recA == released && mutation == resume_unasked -> write_A(taken_back); doA = going_back
              :: recA == released && mutation != resume_unasked -> doA = asking; news = 1
              :: recA == taken_back || recA == resolved_here -> doA = going_back
              :: recA == resolved_there -> doA = marking
              :: else -> doA = idle
           fi }
    od
}

/* QEMU and the stream between them, which outlive both daemons. */
proctype Stream()
{
end: do
    :: atomic { qemuA == device && stream && qemuB == incoming -> qemuB = arrived; news = 1 }
    :: atomic { qemuA == device && stream && qemuB == arrived ->
           if :: postcopy -> qemuA = postcopy_active :: else -> qemuA = postmigrate fi; news = 1 }
    :: atomic { qemuA == device && (!stream || qemuB == dead) ->
           if :: run_at_A() :: qemuA = paused fi }
    :: atomic { qemuA == postcopy_active && stream && !pages && qemuB != dead -> pages = 1; qemuA = postmigrate; news = 1 }
    :: atomic { qemuA == postcopy_active && !stream -> qemuA = postcopy_paused }
    :: atomic { qemuA == postcopy_paused && reach && qemuB != dead -> stream = 1; qemuA = postcopy_active }
    od
}

proctype Destination()
{
    bit cannot;
end: do
    :: atomic { !upB -> upB = 1; if :: mutation != load_unsynced -> diskB = recB :: else fi }
    :: atomic { upB && penB != 0 ->
           recB = penB;
           if :: penB == loaded || (penB == start_attempted && mutation == attempt_unsynced) :: else -> diskB = penB fi;
           if :: mutation == torn_kept && tornB -> recB = no_record; diskB = no_record; tornB = 0 :: else fi;
           penB = 0; news = 1 }
    /* Finish */
    :: atomic { ableB && finish_call == Ok && doB == idle -> finish_call = 0; finishing = 1;
           if :: recB == prepared && (proofB || mutation == no_proof) && qemuB == arrived ->
                 write_B(loaded); doB = persisting
              :: recB == prepared && !((proofB || mutation == no_proof) && qemuB == arrived) ->
                 if :: package -> finish_reply = Err; finishing = 0
                    :: else -> died = (kept -> 1 : died); abort_B() fi
              :: else
           fi }
    :: atomic { ableB && finish_call == Err && doB == idle -> finish_call = 0;
           if :: (recB == prepared || recB == loaded) && gives_up -> abort_B() :: else fi }
    :: atomic { ableB && doB == persisting && recB == loaded && qemuB != dead ->
           if :: mutation != persist_late -> defB = 1 :: else fi; doB = committing }
    :: atomic { ableB && (doB == persisting || doB == committing) && recB == loaded && losses > 0 && !package ->
           losses--; died = (kept -> 1 : died); abort_B(); doB = idle } /* it failed: no space, an abort, a deadline */
    :: atomic { ableB && doB == committing && recB == loaded && qemuB == arrived ->
           if :: mutation == cont_first -> run_at_B() :: else -> write_B(committed); doB = idle fi }
    :: atomic { ableB && doB == committing && recB == loaded && (qemuB == running || qemuB == standing) ->
           write_B(committed); doB = idle }
    :: atomic { ableB && (doB == persisting || doB == committing) && (recB == aborted || qemuB == dead) ->
           if :: recB == loaded -> abort_B() :: else fi; doB = idle }
    /* from the commit on: forward, the same after a restart */
    :: atomic { ableB && recB == committed && qemuB == arrived && doB == idle ->
           if :: mutation == no_attempt -> run_at_B() :: else -> write_B(start_attempted) fi }
    :: atomic { ableB && recB == start_attempted && qemuB == arrived -> run_at_B() }
    :: atomic { ableB && (recB == start_attempted || (recB == committed && (mutation == no_attempt || mutation == cont_first))) &&
           (qemuB == running || qemuB == standing) -> write_B(started) }
    :: atomic { ableB && recB == committed && qemuB == dead && mutation != never_revoke -> abort_B() }
    :: atomic { ableB && recB == started && finishing && (defB || mutation != persist_late) -> finishing = 0; finish_reply = Ok }
    :: atomic { ableB && recB == started && mutation == persist_late && finishing && !defB -> defB = 1 }
    :: atomic { ableB && finishing && doB == idle && (recB == aborted || recB == no_record ||
           (recB == start_attempted && qemuB == dead)) -> finishing = 0; finish_reply = Err }
    /* the client that called Prepare has gone */
    :: atomic { ableB && (recB == prepared || recB == loaded) && doB == idle && finish_call == 0 &&
           (eof || !connB || (p2p && !link) || qemuB == dead) && gives_up -> abort_B() }
    :: atomic { ableB && (recB == prepared || recB == loaded) && doB == idle && finish_call == 0 &&
           (eof || !connB || (p2p && !link)) && qemuB == arrived &&
           (mutation == alone_unproved || (postcopy && mutation == postcopy_forward)) ->
           write_B(loaded); doB = persisting }
    :: atomic { ableB && recB == aborted && doB == idle && !goneB ->
           if :: qemuB != dead -> qemuB = dead :: else -> defB = 0 fi; news = 1 }
    :: atomic { ableB && recB == aborted && goneB && !probed && finish_call == 0 -> recB = no_record; diskB = no_record }
    /* the source asks */
    :: atomic { ableB && link && len(question) > 0 && (recB == prepared || recB == loaded) ->
           question?<cannot>;
           if :: cannot && qemuB == arrived && doB == idle ->
                 question?_; proofB = 1; write_B(loaded); doB = persisting; say(Answer_wait)
              :: cannot && qemuB == arrived && doB != idle -> question?_; say(Answer_wait)
              :: else ->
                 if :: mutation == no_tombstone -> question?_; say(Answer_aborted) :: else -> abort_B() fi
           fi; cannot = 0 }
    :: atomic { ableB && link && len(question) > 0 && recB == aborted && (goneB || mutation == answer_early) ->
           question?_; say(Answer_aborted) }
    :: atomic { ableB && link && len(question) > 0 && recB == committed && (qemuB != dead || mutation == never_revoke) ->
           question?_; say(Answer_wait) }
    :: atomic { ableB && link && len(question) > 0 && recB == start_attempted -> question?_;
           if :: qemuB == dead -> say(Answer_unknown) :: else -> say(Answer_wait) fi }
    :: atomic { ableB && link && len(question) > 0 && recB == started -> question?_; say(Answer_running) }
    :: atomic { ableB && link && len(question) > 0 && recB == no_record -> question?_;
           if :: mutation == lost_aborted -> say(Answer_aborted) :: else -> say(Answer_unknown) fi }
    od
}

/* A half-written line was never written, or is whole but not on the disk. Only if the host stays up
 * does the rest of what was not synced stay. */
inline crash_daemon_A()
{
    if :: penA != 0 -> if :: recA = penA :: tornA = 1 fi; penA = 0 :: else fi;
    upA = 0; doA = restarting; connA = 0; asked = 0; doubt = 0; news = 1; confirm_call = 0; performed_with = 0;
    do :: len(answer) > 0 -> answer?_ :: else -> break od;
    if :: p2p -> clientUp = 0 :: else fi
}
inline crash_daemon_B()
{
    if :: penB != 0 -> if :: recB = penB :: tornB = 1 fi; penB = 0 :: else fi;
    upB = 0; doB = idle; connB = 0; finish_call = 0; finishing = 0; proofB = 0; news = 1; asked = 0;
    if :: finish_reply == Ok :: else -> finish_reply = 0 fi
}
inline kill_A()
{
    if :: qemuA == dead
       :: qemuA != dead && sent && whole && (recB == prepared || recB == loaded) && penB != aborted && len(question) == 0 ->
          kept = 1; qemuA = dead /* B has all of it, and nobody has asked for it */
       :: else -> died = 1; qemuA = dead
    fi;
    if :: postcopy && !pages && qemuB != incoming && qemuB != dead -> qemuB = dead; news = 1 :: else fi;
    stream = 0
}
inline kill_B()
{
    if :: qemuB == running || qemuB == standing || (kept && qemuB == arrived) -> died = 1
       :: postcopy && no_way_back -> died = 1
       :: else fi;
    qemuB = dead; stream = 0; news = 1
}
inline crash_host_A()
{
    if :: penA != 0 -> if :: diskA = penA :: skip fi; penA = 0 :: else fi;
    recA = diskA; if :: qemuA != dead -> sent = 0 :: skip fi; crash_daemon_A(); kill_A()
}
inline crash_host_B()
{
    if :: penB != 0 -> if :: diskB = penB :: skip fi; penB = 0 :: else fi;
    recB = diskB; crash_daemon_B(); kill_B()
}

proctype Faults()
{
    do
    :: atomic { crashes > 0 && upA -> crashes--; crash_daemon_A() }
    :: atomic { crashes > 0 && upA -> crashes--; crash_host_A() }
    :: atomic { crashes > 0 && qemuA != dead -> crashes--; kill_A(); news = 1 }
    :: atomic { crashes > 0 && upB -> crashes--; crash_daemon_B() }
    :: atomic { crashes > 0 && upB -> crashes--; crash_host_B() }
    :: atomic { crashes > 0 && qemuB != dead -> crashes--; kill_B() }
    :: atomic { crashes > 0 && upB && !lostB -> /* B is installed anew */
           crashes--; crash_host_B(); lostB = 1; recB = no_record; diskB = no_record; defB = 0; arriving = 0 }
    :: atomic { forgetful && crashes > 0 && upA && recA != none -> /* so is A's /var, while its QEMU goes on */
           crashes--; crash_daemon_A(); lostA = 1; recA = no_record; diskA = no_record; mark = 0 }
    :: atomic { crashes > 0 && clientUp && !p2p -> crashes--; clientUp = 0 }
    :: atomic { losses > 0 && link -> losses--; link = 0; stream = 0; asked = 0; news = 1;
           do :: len(answer) > 0 -> answer?_ :: else -> break od }
    :: atomic { !link -> link = 1; news = 1 }
    :: atomic { losses > 0 && len(question) > 0 -> losses--; question?_; asked = 0; news = 1 }
    :: atomic { losses > 0 && finish_reply == Ok && client == c_finishing -> losses--; finish_reply = Err }
    :: atomic { link = 1; calm = 1; news = 1; crashes = 0; losses = 0; break }
    od
}

/* `vz resolve`. What an operator asserts is true, or is made true first: hosts are fenced. */
proctype Operator()
{
end: do
    :: atomic { decides && ableA && doA == asking && recA == released && (doubt || !link || !upB) && !no_way_back &&
           !(postcopy && qemuA == device) && qemuA != dead && !hereA && !thereA ->
           if :: upB -> crash_host_B() :: else -> kill_B() fi;
           hereA = 1; if :: mutation != here_marked -> mark = 0 :: else fi;
           write_A(resolved_here); doA = going_back }
    :: atomic { decides && ableA && doA == asking && recA == released && doubt && !hereA && !thereA &&
           ((recB == start_attempted && qemuB == dead && defB) || ((qemuB == running || qemuB == standing) && (!postcopy || pages)) ||
            (no_way_back && qemuB == dead) || qemuA == dead) ->
           thereA = 1; write_A(resolved_there); doA = marking }
    :: atomic { decides && ableB && doB == idle && !thereB && !upA && (recB == prepared || recB == loaded) && whole ->
           kill_A(); thereB = 1; proofB = 1; write_B(loaded); doB = persisting }
    :: atomic { decides && ableB && doB == idle && !thereB && !upA && recB == start_attempted && qemuB == dead && defB ->
           kill_A(); thereB = 1; write_B(started) }
    od
}

/* virsh start and resume, autostart, Pacemaker: on either host, whenever virtvzd lets them. */
#define users_A (starts > 0 && ableA && doA == idle && (recA == ended || recA == no_record || \
                 (recA == resolved_here && !thereB)))
#define users_B (starts > 0 && ableB && doB == idle && (!arriving || thereB || mutation == no_arriving || \
                 (reach && mark && penA == 0 && (recA == ended || recA == no_record))))
proctype Others()
{
end: do
    :: atomic { users_A && qemuA == dead && !mark && !lostA -> starts--; run_at_A() }
    :: atomic { users_A && qemuA == dead && mark && reach && !lostB && penB == 0 && goneB &&
           recB != prepared && recB != loaded && recB != committed && recB != start_attempted -> starts--; run_at_A() }
    :: atomic { users_A && lostA && qemuA == postmigrate && mutation == lost_resumable -> starts--; run_at_A() }
    :: atomic { users_B && qemuB == dead && defB && (recB == started || recB == start_attempted || recB == no_record) &&
           !(recB == start_attempted && !mark) -> starts--; pages = 1;
           CHECK(TWO_RUN, qemuA != running); qemuB = running; ever = 1; news = 1 }
    :: atomic { users_B && qemuB == standing && (recB == started || recB == no_record) -> starts--;
           CHECK(TWO_RUN, qemuA != running); qemuB = running }
    od
}

#define alive (qemuA == running || qemuB == running || qemuB == standing)
proctype Judge() /* when nothing can happen any more: all is up and connected, and users are tired */
{
    atomic { timeout ->
        assert(calm);
        CHECK(NONE_RUN, alive || died || lostA || (recA == released && doubt) || (thereA && (defB || lostB)) || thereB);
        CHECK(DOUBT, recA != released || (doA == asking && doubt && !back &&
              ((recB == start_attempted && qemuB == dead) || lostB)));
        CHECK(DOUBT, recA != released || !decides || hereA || thereA);
        CHECK(DOUBT, recA == released || qemuA == running || qemuA == dead || lostA);
        CHECK(LEFT_OVER, recA == released || lostA || (recA == no_record && recB == no_record && (!defB || !arriving)));
        CHECK(LEFT_OVER, recA == released || lostA || !(qemuB == incoming || qemuB == arrived));
        CHECK(SUCCESS, !mark || lostB || defB);
        CHECK(SUCCESS, !quiet || (mark && qemuA == dead && defB && (qemuB == running || (stay && qemuB == standing)))) }
}

init
{
    atomic {
        READ_SETTINGS;
        crashes = crashes_max; losses = losses_max; starts = starts_max;
        run Client(); run Source(); run Stream(); run Destination(); run Operator(); run Others();
        run Faults(); run Judge()
    }
}
