//! What can be done to a fleet, and what is measured meanwhile.

pub(crate) mod churn;
pub(crate) mod enrol;
pub(crate) mod idle;
pub(crate) mod join;
pub(crate) mod one_change;
pub(crate) mod policy_flip;
pub(crate) mod reconnect;
pub(crate) mod rolling_restart;
pub(crate) mod slow_readers;
pub(crate) mod storm;

use anyhow::{Result, bail};

use wattle_proto::admin::Mode;

use crate::{
    admin::GROUP,
    args::{Command, Common},
    bench::Bench,
    outcome::Outcome,
};

/// Runs a scenario.
pub(crate) async fn run(command: &Command) -> Result<Vec<Outcome>> {
    Ok(match command {
        Command::OneChange(args) => vec![one_change::run(args).await?],
        Command::Churn(args) => vec![churn::run(args).await?],
        Command::Join(args) => vec![join::run(args).await?],
        Command::Reconnect(args) => reconnect::run(args).await?,
        Command::PolicyFlip(args) => vec![policy_flip::run(args).await?],
        Command::SlowReaders(args) => vec![slow_readers::run(args).await?],
        Command::Idle(args) => vec![idle::run(args).await?],
        Command::Enrol(args) => vec![enrol::run(args).await?],
        Command::RollingRestart(args) => vec![rolling_restart::run(args).await?],
        Command::Storm(args) => vec![storm::run(args).await?],
        Command::Publish(_) | Command::Worker | Command::RawServer => bail!("not a scenario"),
    })
}

/// Milliseconds between two times in nanoseconds.
pub(crate) fn millis(begin: u64, end: u64) -> f64 {
    crate::outcome::rounded(end.saturating_sub(begin) as f64 / 1e6)
}

/// A bench whose agents all see each other: one class in a mesh, or as many classes as groups in a
/// closed network with a policy for all and one for each group.
pub(crate) async fn seeing_all(common: &Common) -> Result<Bench> {
    if common.groups == 1 {
        return Bench::start(common, Mode::Mesh).await;
    }
    let mut bench = Bench::start(common, Mode::Closed).await?;
    let mut policies = vec![("all".to_owned(), String::new(), String::new())];
    for group in 0..common.groups {
        let members = format!("{GROUP}={group}");
        policies.push((format!("group-{group}"), members.clone(), members));
    }
    bench.admin.put_policies(&policies).await?;
    Ok(bench)
}
