//! A model check of the shipped plans: every order in which operators, nodes, the cluster, a clumsy editor and time can do
//! what they do to a network of four validators, within small bounds.
//!
//! What decides is the shipped code: `network::plan` and `network::report`, `bizra_node::plan` and `bizra_node::report`,
//! the last look before an eviction (`bizra_node::act::is_held` and `judge`) and the census under all of them. It is given real
//! objects ([`shipped`]), made of a small state ([`world`]) of what it reads. The rest is modelled ([`explore`]):
//!
//! * The API server: creates that meet `AlreadyExists`, forced applies, evictions bound to a uid and to the disruption
//!   budget, statuses written with compare-and-swap.
//! * Operators. A reconciliation may be stopped after its first reads, before any of its writes, and before each look of the
//!   last check. What it had still to do may be done at any later time, while another operator leads, or never. So a crash
//!   between two writes, a plan made from an old or a torn observation, and a paused leader are all the same thing.
//! * Nodes, which start, come in sync, fall behind (at first unseen by poller and readiness probe, or not) and die; kubelets,
//!   the garbage collector, time.
//! * An editor, who changes the image, deletes pods and `BizraNode`s, and takes the permit out of the status.
//!
//! What it found so far: a pod lost between grant and use, and made anew from the former template, kept the permit until its
//! deadline, and a sound roll-out was taken back; a stopped operator could evict, without a permit, a pod that had not run when
//! it was found and voted by then; a node whose permit was lost or had expired when its broken image came up held up the roll-out
//! for ever, without a word to anybody; a status that told of a former pod made an image that never ran pass for one that works.
//!
//! A node that voted and was taken down with a permit counts as away until it is in sync again, whatever becomes of the permit. What
//! is not in sync may be evicted meanwhile: it votes for nothing, and no budget protects it.
//!
//! Assumed: a kubelet's word that a container does not run is true when the pod's version is (a kubelet that cannot reach the API
//! server, with a container that starts again meanwhile, is outside). The API server reads what it has written. Genesis, claims,
//! configuration and certificates are there; Network and namespace stay.

mod explore;
mod shipped;
mod world;

use std::time::Duration;

use explore::{Bounds, ONE_AT_A_TIME, PERMITTED, QUORUM, Summary, check};
use shipped::Guard;
use world::{Image, Trouble};

const EQUAL: [u64; 4] = [1; 4];
/// Two validators that never may go, and two that could both be away.
const UNEQUAL: [u64; 4] = [5, 5, 1, 1];
/// One validator that never may go, and three of which two could be away.
const LOPSIDED: [u64; 4] = [9, 1, 1, 1];
/// Nothing goes wrong.
const CALM: Trouble = Trouble { edits: 0, deletions: 0, thefts: 0, faults: 0, pauses: 0, delays: 0 };

fn explore(bounds: Bounds, jobs: usize, limit: Duration) -> Summary {
    println!("{bounds:?}:");
    let summary = check(bounds, jobs, limit);
    let Summary { states, generated, depth, calls, is_complete, violations, unreached, elapsed } = &summary;
    println!(
        "  {states} states ({generated} generated), depth {depth}, {calls} calls of shipped functions, {:.1} s, {}; not met: {unreached:?}",
        elapsed.as_secs_f64(),
        if *is_complete { "all within the bounds" } else { "not all within the bounds" },
    );
    for (promise, how) in violations {
        println!("  broken: {promise}: {how}");
    }
    summary
}

/// Explores each for at most `limit`; no promise may be broken.
fn assert_kept(all: Vec<Bounds>, jobs: usize, limit: Duration) {
    for bounds in all {
        let summary = explore(bounds, jobs, limit);
        assert!(summary.violations.is_empty(), "{:#?}", summary.violations);
        assert!(summary.states > 100, "{summary:?}");
    }
}

fn bounds(powers: [u64; 4], images: &[Image], struck: &[usize], trouble: Trouble) -> Bounds {
    Bounds { powers, images: images.to_vec(), trouble, struck: struck.to_vec(), without: Vec::new() }
}

#[test]
fn no_order_of_steps_breaks_a_promise() {
    use Image::{Broken, Second, Stuck};
    let all = vec![
        // An operator is stopped, or two lead, while a node fails in the middle of a roll-out.
        bounds(EQUAL, &[Second], &[0], Trouble { edits: 1, faults: 1, pauses: 1, ..CALM }),
        bounds(UNEQUAL, &[Second], &[3], Trouble { edits: 1, faults: 1, pauses: 1, thefts: 1, ..CALM }),
        // Somebody deletes a pod or a BizraNode, and takes the permit away.
        bounds(EQUAL, &[Second], &[0], Trouble { edits: 1, deletions: 1, thefts: 1, ..CALM }),
        // The image is edited to some that do not work, and a node takes too long.
        bounds(EQUAL, &[Second, Broken], &[], Trouble { edits: 2, delays: 1, ..CALM }),
        bounds(EQUAL, &[Stuck], &[0], Trouble { edits: 1, thefts: 1, pauses: 1, delays: 1, ..CALM }),
    ];
    assert_kept(all, 1, Duration::from_secs(10));
}

#[test]
#[ignore = "takes as long as it is given; `make model-operator`"]
fn no_order_of_steps_breaks_a_promise_within_wider_bounds() {
    use Image::{Broken, First, Second, Stuck};
    let seconds = std::env::var("SECONDS_EACH").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(120);
    let every = &[0, 1, 2, 3];
    let all = vec![
        bounds(EQUAL, &[Second], every, Trouble { edits: 1, faults: 1, pauses: 1, ..CALM }),
        bounds(EQUAL, &[Second], every, Trouble { edits: 1, deletions: 1, thefts: 1, ..CALM }),
        bounds(EQUAL, &[First, Second, Stuck], &[], Trouble { edits: 2, pauses: 1, thefts: 1, ..CALM }),
        bounds(EQUAL, &[Second], &[0, 2], Trouble { edits: 1, faults: 1, pauses: 2, ..CALM }),
        bounds(EQUAL, &[Second], &[0, 2], Trouble { edits: 1, deletions: 1, pauses: 1, ..CALM }),
        bounds(EQUAL, &[First, Second, Stuck, Broken], &[0], Trouble { edits: 2, faults: 1, delays: 1, ..CALM }),
        bounds(LOPSIDED, &[Second], &[3], Trouble { edits: 1, faults: 1, pauses: 1, delays: 1, ..CALM }),
        bounds(UNEQUAL, &[First, Second], &[2, 3], Trouble { edits: 2, faults: 1, pauses: 1, thefts: 1, ..CALM }),
    ];
    assert_kept(all, 2, Duration::from_secs(seconds));
}

/// What is left out is missed.
fn assert_missed(powers: [u64; 4], struck: &[usize], trouble: Trouble, without: &[Guard], promise: &str) {
    let bounds = Bounds { without: without.to_vec(), ..bounds(powers, &[Image::Second], struck, trouble) };
    let summary = explore(bounds, 1, Duration::from_mins(5));
    assert!(summary.violations.iter().any(|(broken, _)| *broken == promise), "{summary:?}");
}

#[test]
fn a_census_that_takes_silence_for_health_puts_the_quorum_at_risk() {
    let trouble = Trouble { edits: 1, faults: 1, ..CALM };
    assert_missed(EQUAL, &[2], trouble, &[Guard::SilenceIsUnknown], QUORUM);
}

#[test]
fn a_permit_used_without_asking_every_node_again_puts_the_quorum_at_risk() {
    let trouble = Trouble { edits: 1, faults: 1, ..CALM };
    assert_missed(EQUAL, &[2], trouble, &[Guard::Asking], QUORUM);
}

#[test]
fn a_pod_that_did_not_vote_may_do_so_by_the_time_it_is_evicted() {
    let trouble = Trouble { edits: 1, faults: 1, pauses: 1, ..CALM };
    assert_missed(EQUAL, &[0], trouble, &[Guard::Version], PERMITTED);
}

#[test]
fn without_a_disruption_budget_a_leader_that_was_stopped_uses_its_permit_beside_another_one() {
    let trouble = Trouble { edits: 1, faults: 1, pauses: 1, delays: 1, ..CALM };
    assert_missed(LOPSIDED, &[3], trouble, &[Guard::Budget], ONE_AT_A_TIME);
}
