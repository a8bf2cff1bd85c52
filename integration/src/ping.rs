//! Pings through the tunnel: one that must arrive, and flows whose losses are counted.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read as _, Seek as _},
    net::IpAddr,
    process::{Child, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Agent, Host, wait_until};

/// Whether one ping from `host` to `address` is answered within `limit`.
pub fn ping(host: &Host, address: IpAddr, limit: Duration) -> Result<bool> {
    let status = host
        .command("ping")
        .args(["-n", "-q", "-c1", "-W", &limit.as_secs_f64().to_string(), &address.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("ping (Debian package iputils-ping)")?;
    match status.code() {
        Some(0) => Ok(true),
        // No answer, or no way there yet.
        Some(1 | 2) => Ok(false),
        _ => bail!("ping: {status}: is Debian's package iputils-ping installed?"),
    }
}

/// Waits until each pair of agents has exchanged packets at all addresses. One of the two pings: its
/// answer needs both to know whose address is whose.
pub fn ping_every_pair(agents: &[Agent], limit: Duration) -> Result<()> {
    for (index, to) in agents.iter().enumerate() {
        for address in to.addresses()? {
            for from in &agents[..index] {
                wait_until(&format!("a ping from {} to {address}", from.name()), limit, || {
                    Ok(ping(from.host(), address, Duration::from_secs(2))?.then_some(()))
                })?;
            }
        }
    }
    Ok(())
}

/// How many of the last packets may be without an answer when a flow is stopped: answers are on their
/// way, on a busy machine for longer than the time between two packets.
const ON_THEIR_WAY: u32 = 5;

/// A running ping, and where it writes.
#[derive(Debug)]
pub struct Flow(Option<Child>, File);

/// What a flow has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Packets sent.
    pub sent: u32,
    /// Packets that weren't answered; the last few, if none of them was, may still be.
    pub lost: u32,
    /// The longest time between two answers, or between the last one and the end.
    pub silence: Duration,
}

impl Flow {
    /// Pings `address` from `host` every `interval` until it is stopped.
    pub fn start(host: &Host, address: IpAddr, interval: Duration) -> Result<Self> {
        let output = tempfile::tempfile()?;
        let child = host
            .command("ping")
            .args(["-n", "-D", "-i", &interval.as_secs_f64().to_string(), &address.to_string()])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(Some(child), output))
    }

    /// Ends it and reads what it said.
    pub fn stop(mut self) -> Result<Lost> {
        let mut child = self.0.take().context("a flow is stopped once")?;
        let until = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
        child.wait()?;
        let mut said = String::new();
        self.1.rewind()?;
        self.1.read_to_string(&mut said)?;
        parse(&said, until).with_context(|| format!("ping said: {said}"))
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Counts the answers by their numbers.
fn parse(said: &str, until: Duration) -> Option<Lost> {
    let summary = said.lines().find(|line| line.contains("packets transmitted"))?;
    let sent: u32 = summary.split_whitespace().next()?.parse().ok()?;
    let answered: BTreeSet<u32> = said
        .lines()
        .filter(|line| line.contains("bytes from"))
        .filter_map(|line| line.split("icmp_seq=").nth(1)?.split_whitespace().next()?.parse().ok())
        .collect();
    let last = answered.last().copied().unwrap_or(0);
    let awaited = if sent - last <= ON_THEIR_WAY { last } else { sent };
    Some(Lost {
        sent,
        lost: awaited - u32::try_from(answered.len()).ok()?,
        silence: silence(said, until),
    })
}

/// The longest time between two answers, or after the last one. Each begins with when it came.
fn silence(said: &str, until: Duration) -> Duration {
    let answers = said.lines().filter(|line| line.contains("bytes from"));
    let at = |line: &str| line.strip_prefix('[')?.split(']').next()?.parse::<f64>().ok();
    let times: Vec<f64> = answers.filter_map(at).chain([until.as_secs_f64()]).collect();
    let between = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    Duration::try_from_secs_f64(between).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(answered: &[u32], sent: u32) -> Option<Lost> {
        let answers: String = answered
            .iter()
            .map(|n| format!("[{n}.25] 64 bytes from 10.90.0.2: icmp_seq={n} ttl=64 time=0.9 ms\n"))
            .collect();
        let text = format!("{answers}\n{sent} packets transmitted, {} received", answered.len());
        parse(&text, Duration::from_millis(250 + 1000 * u64::from(sent)))
    }

    fn lost(sent: u32, lost: u32, silence: u64) -> Option<Lost> {
        Some(Lost { sent, lost, silence: Duration::from_secs(silence) })
    }

    #[test]
    fn what_was_not_answered_is_lost() {
        assert_eq!(said(&[1, 2, 3], 3), lost(3, 0, 1));
        assert_eq!(said(&[1, 3, 4], 4), lost(4, 1, 2));
        assert_eq!(said(&[2, 2, 3], 3), lost(3, 1, 1), "answered twice");
        assert_eq!(said(&[], 9), lost(9, 9, 0));
        assert_eq!(parse("ping: no route", Duration::ZERO), None);
    }

    #[test]
    fn the_last_few_may_be_on_their_way() {
        assert_eq!(said(&[1, 2, 3], 5), lost(5, 0, 2));
        assert_eq!(said(&[1, 2, 3], 9), lost(9, 6, 6));
    }
}
