//! Every scenario, small, against the real control plane: what must be counted right whatever the
//! machine's speed. Times are for the benchmarks.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod other;
mod program;
mod publish;
mod support;

use crate::support::{number, only, run};

#[test]
fn one_change_reaches_everybody_in_few_bytes() {
    let seen = only("one-change --agents 60 --changes 3 --workers 2");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&0.into(), &true.into()), "{seen}");
    assert!(number(&seen, "bytes_per_agent") <= 200.0, "{seen}");
    assert!(number(&seen, "bytes_per_agent") >= 100.0, "an entry has as many: {seen}");
    let applied = ["applied_p50_ms", "applied_p99_ms", "applied_max_ms"].map(|n| number(&seen, n));
    assert!(applied.is_sorted() && applied[0] > 0.0, "{seen}");
    assert!(number(&seen, "handed_ms") > 0.0 && number(&seen, "raw_p99_ms") > 0.0, "{seen}");
}

/// As many classes as groups, and all see all.
#[test]
fn groups_cost_a_change_nothing() {
    let seen = only("one-change --agents 40 --groups 20 --changes 2 --no-raw");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&0.into(), &true.into()), "{seen}");
    assert!(number(&seen, "bytes_per_agent") <= 200.0, "{seen}");
    assert!(seen["raw_p99_ms"].is_null(), "{seen}");
}

#[test]
fn two_halves_see_each_other_and_cease_to() {
    let seen = only("policy-flip --agents 41 --rest 100ms");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&0.into(), &true.into()), "{seen}");
    assert!(number(&seen, "converged_ms") > 0.0, "{seen}");
}

#[test]
fn churn_loses_no_change() {
    let seen = only("churn --agents 40 --rate 20 --duration 3s");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&0.into(), &true.into()), "{seen}");
    assert!(number(&seen, "applied_max_ms") > 0.0, "{seen}");
}

#[test]
fn a_mesh_comes_from_nothing_with_one_full_set_each() {
    let seen = only("join --agents 50 --seed 7");
    assert_eq!(seen["digests_equal"], true, "{seen}");
    assert_eq!((&seen["full_sets"], &seen["resumed"]), (&50.into(), &0.into()), "{seen}");
    assert!(number(&seen, "converged_ms") > 0.0 && number(&seen, "enrol_per_s") > 0.0, "{seen}");
}

#[test]
fn who_comes_back_resumes_and_who_has_nothing_gets_everything() {
    let seen = run("reconnect --agents 50 --workers 2");
    let [with, without] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((&with["full_sets"], &with["resumed"]), (&0.into(), &50.into()), "{with}");
    assert_eq!((&without["full_sets"], &without["resumed"]), (&50.into(), &0.into()), "{without}");
    // 50 entries of 100 bytes are 5,000.
    assert!(number(with, "bytes_per_agent") < number(without, "bytes_per_agent") - 4000.0);
    assert!(with["digests_equal"] == true && without["digests_equal"] == true, "{seen:?}");
}

#[test]
fn frozen_readers_lose_nothing() {
    let seen = only("slow-readers --agents 40 --runs 1 --changes 2");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&4.into(), &true.into()), "{seen}");
    assert!(number(&seen, "converged_ms") > 0.0, "{seen}");
}

#[test]
fn idle_streams_stay() {
    let seen = only("idle --agents 50 --duration 2s");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&50.into(), &true.into()), "{seen}");
    assert!(number(&seen, "server_rss_kb_per_stream") > 0.0, "{seen}");
}

#[test]
fn machines_enrol() {
    let seen = only("enrol --agents 50");
    assert!(number(&seen, "enrol_per_s") > 0.0 && seen["full_sets"].is_null(), "{seen}");
}

/// Nodes and policies change meanwhile.
#[test]
fn replicas_are_restarted_without_a_full_set() {
    let seen = only("rolling-restart --agents 60 --groups 3");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&0.into(), &true.into()), "{seen}");
    // Who knows one replica only waits until that one is back: then most agents open one stream.
    assert!(number(&seen, "resumed") >= 120.0, "{seen}");
    assert!(number(&seen, "gap_p99_ms") > 0.0, "{seen}");
    assert!(number(&seen, "handshakes_per_agent") <= 6.0, "{seen}");
}

#[test]
fn two_replicas_of_three_take_the_whole_fleet() {
    let seen = only("storm --agents 60");
    assert_eq!((&seen["full_sets"], &seen["digests_equal"]), (&0.into(), &true.into()), "{seen}");
    assert_eq!(seen["resumed"], 60, "{seen}");
}
