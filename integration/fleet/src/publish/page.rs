//! The page with the tables.

use std::fmt::Write as _;

use super::{
    Run,
    failover::Failover,
    machine::Machine,
    targets::{Verdict, targets},
};
use crate::outcome::{Outcome, plain};

const HOW: &str = "\
Each run starts a control plane with an embedded store of its own; control plane, store and simulated agents share
the machine. What is real and what is simulated is in [fleet.md](fleet.md).

t0 is the moment at which the store's commit returned; *applied* is the moment at which the agent's state and
digest had changed; both are of one clock. Figures of one change are medians over at least 30 changes, with the
largest beside them.

To measure again, with nothing else running on the machine:

```
make bench-fleet
```

It builds the release profile, runs what is listed below one after the other, and writes this page: no figure on it
is written by hand. `target/release/wattle-fleet` runs each of them alone.
";

const SMALL: &str = "\
**A try: everything ran at about a hundredth of its size, so nothing here says whether a target is met.**
";

/// Writes it.
pub(super) fn page(
    machine: &Machine,
    runs: &[Run],
    failover: Option<&[Failover]>,
    small: bool,
) -> String {
    let mut page = String::from("# Benchmarks\n\n");
    let _ = writeln!(
        page,
        "Measured on {} with {} cores ({}), {:.0} GB, {}; wattle {}, revision {}, {}.\n\n{HOW}",
        machine.date,
        machine.cores,
        machine.processor,
        machine.memory_gb,
        machine.kernel,
        env!("CARGO_PKG_VERSION"),
        machine.revision,
        machine.rustc,
    );
    if small {
        let _ = writeln!(page, "{SMALL}");
    }
    page.push_str("## Targets\n\n");
    row(&mut page, &["", "target", "measured", "slowest change", "met"]);
    row(&mut page, &["---"; 5]);
    for verdict in targets().iter().map(|target| target.verdict(runs)) {
        let Verdict { what, target, measured, most, met } = verdict;
        row(&mut page, &[what, &target, &measured, &most, met]);
    }
    one_change(&mut page, runs);
    where_time_goes(&mut page, runs);
    if let Some(failover) = failover {
        when_something_fails(&mut page, failover);
    }
    everything(&mut page, runs);
    page
}

fn one_change(page: &mut String, runs: &[Run]) {
    page.push_str(
        "\n## One change\n\nThe network is closed; one policy lets all see all, and one for each \
         group lets its members see each other: the\nset-up by which others publish what one \
         change costs. With one group the network is a mesh. Milliseconds from t0;\nbehind the \
         stroke the slowest change.\n\n",
    );
    row(
        page,
        &[
            "peers",
            "groups",
            "woken",
            "applied p50",
            "p99",
            "slowest agent",
            "raw TLS p99",
            "ratio",
            "bytes",
        ],
    );
    row(page, &["---:"; 9]);
    for one in outcomes(runs).filter(|outcome| outcome.scenario == "one-change") {
        let beside = &one.beside;
        row(
            page,
            &[
                &one.agents.to_string(),
                &one.groups.to_string(),
                &both(one.handed_ms, beside.handed_max_ms),
                &figure(one.applied_p50_ms),
                &both(one.applied_p99_ms, beside.p99_max_ms),
                &figure(one.applied_max_ms),
                &both(one.raw_p99_ms, beside.raw_p99_max_ms),
                &figure(one.raw_ratio),
                &figure(one.bytes_per_agent),
            ],
        );
    }
}

fn where_time_goes(page: &mut String, runs: &[Run]) {
    page.push_str(
        "\n## Where the time goes\n\nProcessor time for each agent and each change, of the control \
         plane and of the simulated agents, in microseconds, with\nthe acks that come within the \
         second after; and how long all cores take for it.\n\n",
    );
    row(page, &["run", "control plane", "agents", "all cores, ms"]);
    row(page, &["---", "---:", "---:", "---:"]);
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    for run in runs {
        let Some(outcome) = &run.outcome else { continue };
        let (server, fleet) =
            (outcome.server_cpu_us_per_agent, outcome.beside.fleet_cpu_us_per_agent);
        let Some((server_us, fleet_us)) = server.zip(fleet) else { continue };
        let all = (server_us + fleet_us) * outcome.agents as f64 / cores / 1000.0;
        let line = format!("`{}`", run.line);
        row(page, &[&line, &figure(server), &figure(fleet), &figure(Some(all))]);
    }
    page.push_str(
        "\nWhat profiles say about it is in [benchmarks-notes.md](benchmarks-notes.md).\n",
    );
}

fn when_something_fails(page: &mut String, failover: &[Failover]) {
    page.push_str(
        "\n## When something fails\n\nThree replicas over three members of etcd, and machines of \
         which every pair exchanges 20 packets a second while\nlabels, policies and machines \
         change: `make demo-ha`, dev build. Behind the re-homed agents is how long after the \
         fault\n99 of 100 were connected again.\n\n",
    );
    row(
        page,
        &[
            "what fails",
            "packets lost",
            "re-homed",
            "p99, ms",
            "full sets",
            "changes lost",
            "equal",
        ],
    );
    row(page, &["---", "---:", "---:", "---:", "---:", "---:", "---"]);
    for one in failover {
        row(
            page,
            &[
                &one.fault,
                &format!("{} of {}", one.packets_lost, one.packets),
                &one.rehomed.to_string(),
                &figure(one.rehome_p99_ms),
                &one.full_sets.to_string(),
                &one.changes_lost.to_string(),
                if one.digests_equal { "yes" } else { "**no**" },
            ],
        );
    }
}

fn everything(page: &mut String, runs: &[Run]) {
    page.push_str(
        "\n## All figures\n\nAs `wattle-fleet --json` prints them; its `--help` says \
                   what each means.\n",
    );
    for run in runs {
        let _ = writeln!(page, "\n`wattle-fleet {}`\n", run.line);
        if let Some(failure) = &run.failure {
            let _ = writeln!(page, "**The run failed**:\n\n```text\n{failure}\n```\n");
        }
        if let Some(outcome) = &run.outcome {
            let json = serde_json::to_string(outcome).expect("figures are plain values");
            let _ = writeln!(page, "```json\n{json}\n```\n");
            for (name, text) in &outcome.notes {
                let _ = writeln!(page, "- {name}: {text}");
            }
        }
        let _ = writeln!(page, "- took: {:.0} s", run.took.as_secs_f64());
    }
}

fn outcomes(runs: &[Run]) -> impl Iterator<Item = &Outcome> {
    runs.iter().filter_map(|run| run.outcome.as_ref())
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), plain)
}

fn both(value: Option<f64>, most: Option<f64>) -> String {
    match most {
        Some(most) => format!("{} / {}", figure(value), plain(most)),
        None => figure(value),
    }
}

fn row(page: &mut String, cells: &[&str]) {
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}
