//! What the control plane is designed for, and where each figure is found.

use super::Run;
use crate::outcome::Outcome;

/// A figure and its bound.
pub(super) struct Target {
    pub(super) what: &'static str,
    /// Which run it is of, counted from 0.
    run: usize,
    bound: Bound,
    unit: &'static str,
    figure: fn(&Outcome) -> Option<f64>,
    most: fn(&Outcome) -> Option<f64>,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A target's line.
pub(super) struct Verdict {
    pub(super) what: &'static str,
    pub(super) target: String,
    pub(super) measured: String,
    /// The largest beside a median.
    pub(super) most: String,
    pub(super) met: &'static str,
}

const fn none(_: &Outcome) -> Option<f64> {
    None
}

const fn at_most(
    what: &'static str,
    run: usize,
    bound: f64,
    unit: &'static str,
    figure: fn(&Outcome) -> Option<f64>,
) -> Target {
    Target { what, run, bound: Bound::AtMost(bound), unit, figure, most: none }
}

/// In the order of the runs.
pub(super) fn targets() -> Vec<Target> {
    let converged: fn(&Outcome) -> Option<f64> = |o| o.converged_ms.map(|ms| ms / 1000.0);
    let p99: fn(&Outcome) -> Option<f64> = |o| o.applied_p99_ms;
    let p99_max: fn(&Outcome) -> Option<f64> = |o| o.beside.p99_max_ms;
    vec![
        Target {
            most: |o| o.beside.handed_max_ms,
            ..at_most(
                "one change, 5,000 peers in 200 groups: readable in the index, every stream woken",
                2,
                10.0,
                "ms",
                |o| o.handed_ms,
            )
        },
        Target {
            most: p99_max,
            ..at_most("the same: applied, p99 over agents", 2, 150.0, "ms", p99)
        },
        Target {
            most: p99_max,
            ..at_most("one change, 10,000 agents: applied, p99", 5, 300.0, "ms", p99)
        },
        at_most("the same: p99 to that of plain TLS", 5, 1.5, "times", |o| o.raw_ratio),
        at_most("the same: TLS bytes to each agent", 5, 200.0, "bytes", |o| o.bytes_per_agent),
        at_most("100 changes a second for 60 s, 5,000 agents: p99", 6, 250.0, "ms", p99),
        at_most("the same: slowest", 6, 1000.0, "ms", |o| o.applied_max_ms),
        at_most("memory of an idle stream, 5,000 of them", 7, 40.0, "KB", |o| {
            o.server_rss_kb_per_stream
        }),
        at_most("5,000 reconnect at once, with state", 8, 10.0, "s", converged),
        at_most("the same without state: 25 million entries", 9, 20.0, "s", converged),
        at_most("1,000 join from nothing, all to all", 10, 10.0, "s", converged),
        at_most("2,000 join from nothing, all to all", 11, 30.0, "s", converged),
        Target {
            bound: Bound::AtLeast(500.0),
            ..at_most("enrolment, sustained", 12, 0.0, "a second", |o| o.enrol_per_s)
        },
        at_most(
            "a tenth of 5,000 readers frozen: p99 of the others to that without",
            13,
            1.1,
            "times",
            |o| o.beside.frozen_ratio,
        ),
        at_most("policy flip, 2,500 × 2,500 pairs: the slower way", 14, 5.0, "s", converged),
        at_most("the same: server memory 30 s later to that before", 14, 1.1, "times", |o| {
            o.beside.memory_ratio
        }),
        at_most("3 replicas restarted one by one, 5,000 agents: full sets", 15, 0.0, "sent", |o| {
            o.full_sets.map(|sets| sets as f64)
        }),
        at_most("the same: without a stream, p99", 15, 2.0, "s", |o| {
            o.gap_p99_ms.map(|ms| ms / 1000.0)
        }),
        at_most("the same: streams accepted for each agent", 15, 4.0, "streams", |o| {
            o.handshakes_per_agent
        }),
        at_most("one of 3 replicas killed, 5,000 come to the others", 16, 10.0, "s", converged),
    ]
}

impl Target {
    /// What the runs say of it.
    pub(super) fn verdict(&self, runs: &[Run]) -> Verdict {
        let run = runs.get(self.run);
        let outcome = run.and_then(|run| run.outcome.as_ref());
        let failed = run.is_some_and(|run| run.failure.is_some());
        let measured = outcome.and_then(self.figure);
        let text = |value: f64| format!("{} {}", crate::outcome::plain(value), self.unit);
        let (sign, bound) = match self.bound {
            Bound::AtMost(bound) => ("≤", bound),
            Bound::AtLeast(bound) => ("≥", bound),
        };
        Verdict {
            what: self.what,
            target: format!("{sign} {bound} {}", self.unit),
            measured: measured.map_or_else(|| "-".into(), text),
            most: outcome.and_then(self.most).map_or_else(String::new, text),
            met: match measured {
                _ if failed => "**the run failed**",
                None => "not measured",
                Some(measured) if self.bound.holds(measured) => "yes",
                Some(_) => "**no**",
            },
        }
    }
}

impl Bound {
    fn holds(self, measured: f64) -> bool {
        match self {
            Self::AtMost(bound) => measured <= bound,
            Self::AtLeast(bound) => measured >= bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(outcome: &Outcome) -> Vec<Run> {
        let run = |line| Run {
            line,
            outcome: Some(outcome.clone()),
            failure: None,
            took: std::time::Duration::ZERO,
        };
        super::super::RUNS.into_iter().map(run).collect()
    }

    #[test]
    fn each_target_is_judged_the_right_way() {
        let mut outcome = Outcome::of("x", 2, 1);
        outcome.enrol_per_s = Some(499.0);
        outcome.converged_ms = Some(10_000.0);
        for target in targets() {
            let verdict = target.verdict(&runs(&outcome));
            let expected = match target.what {
                "enrolment, sustained" => "**no**",
                "policy flip, 2,500 × 2,500 pairs: the slower way" => "**no**",
                what if what.contains("join") || what.contains("reconnect") => "yes",
                what if what.contains("killed") => "yes",
                what if what.contains("without state") => "yes",
                _ => "not measured",
            };
            assert_eq!(verdict.met, expected, "{}: {}", verdict.what, verdict.measured);
        }
    }

    #[test]
    fn each_target_is_of_the_run_that_it_names() {
        for (words, line) in [
            ("5,000 peers in 200 groups", "one-change --agents 5000 --groups 200"),
            ("10,000 agents", "one-change --agents 10000"),
            ("100 changes a second", "churn --agents 5000 --rate 100 --duration 60s"),
            ("idle stream", "idle --agents 5000 --duration 60s"),
            ("with state", "reconnect --agents 5000 --only state"),
            ("without state", "reconnect --agents 5000 --only nothing"),
            ("1,000 join", "join --agents 1000"),
            ("2,000 join", "join --agents 2000"),
            ("enrolment", "enrol --agents 5000"),
            ("readers frozen", "slow-readers --agents 5000 --runs 5"),
            ("policy flip", "policy-flip --agents 5000"),
            ("server memory 30 s later", "policy-flip --agents 5000"),
            ("3 replicas restarted", "rolling-restart --agents 5000"),
            ("streams accepted", "rolling-restart --agents 5000"),
            ("one of 3 replicas killed", "storm --agents 5000"),
        ] {
            let target = targets().into_iter().find(|target| target.what.contains(words)).unwrap();
            assert_eq!(super::super::RUNS[target.run], line, "{words}");
        }
    }

    #[test]
    fn what_a_failed_run_measured_is_shown_and_counts_for_nothing() {
        let outcome = Outcome { enrol_per_s: Some(900.0), ..Outcome::of("enrol", 2, 1) };
        let mut runs = runs(&outcome);
        let enrolment = targets().into_iter().find(|target| target.what.contains("enrolment"));
        let enrolment = enrolment.unwrap();
        assert_eq!(enrolment.verdict(&runs).met, "yes");
        runs[enrolment.run].failure = Some("ERROR".into());
        let verdict = enrolment.verdict(&runs);
        assert_eq!((&*verdict.measured, verdict.met), ("900 a second", "**the run failed**"));
        runs.truncate(3);
        assert_eq!(enrolment.verdict(&runs).met, "not measured");
    }
}
