//! Pings through the tunnel: one that must arrive, and flows whose losses are counted.

use std::{
    io::Read as _,
    net::IpAddr,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
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
    Ok(status.success())
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

/// A running ping.
#[derive(Debug)]
pub struct Flow(Option<Child>);

/// What a flow has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Packets sent.
    pub sent: u32,
    /// Packets that weren't answered.
    pub lost: u32,
}

impl Flow {
    /// Pings `address` from `host` every `interval` until it is stopped.
    pub fn start(host: &Host, address: IpAddr, interval: Duration) -> Result<Self> {
        let child = host
            .command("ping")
            .args(["-n", "-q", "-i", &interval.as_secs_f64().to_string(), &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(Some(child)))
    }

    /// Ends it and reads its own summary. The last packet may still be on its way, so one
    /// unanswered packet at the very end isn't counted by ping as sent-and-lost more than once.
    pub fn stop(mut self) -> Result<Lost> {
        let mut child = self.0.take().context("a flow is stopped once")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
        let mut summary = String::new();
        child.stdout.take().context("piped above")?.read_to_string(&mut summary)?;
        child.wait()?;
        parse(&summary).with_context(|| format!("ping said: {summary}"))
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

fn parse(summary: &str) -> Option<Lost> {
    let line = summary.lines().find(|line| line.contains("packets transmitted"))?;
    let number = |text: &str| text.split_whitespace().next()?.parse::<u32>().ok();
    let mut parts = line.split(',');
    let (sent, received) = (number(parts.next()?)?, number(parts.next()?)?);
    Some(Lost { sent, lost: sent - received.min(sent) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_summary_of_ping() {
        let text = "--- x ping statistics ---\n50 packets transmitted, 48 received, 4% packet loss";
        assert_eq!(parse(text), Some(Lost { sent: 50, lost: 2 }));
        let errors = "9 packets transmitted, 4 received, +5 errors, 55% packet loss, time 1ms";
        assert_eq!(parse(errors), Some(Lost { sent: 9, lost: 5 }));
    }
}
