//! Ports for processes that take a while until they listen, and are started on them again.
//!
//! A port that the kernel gives for nothing may be somebody's next moment: a connection's of another
//! test, or a listener's. These are below those that it gives (`ip_local_port_range`), and processes
//! that run at the same time hardly ever share a range.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Result, bail};

/// Below any usual `ip_local_port_range`, above what services have.
const FIRST: u32 = 10_000;
/// Ports of one process, and how many processes have different ones.
const EACH: u32 = 200;
const PROCESSES: u32 = 110;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// So many addresses on loopback that nobody has, and that this process wasn't given before.
pub fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let first = FIRST + std::process::id() % PROCESSES * EACH;
    let mut found = Vec::new();
    for _ in 0..EACH {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % EACH;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port)?));
        if TcpListener::bind(address).is_ok() {
            found.push(address);
        }
        if found.len() == count {
            return Ok(found);
        }
    }
    bail!("no {count} free ports from {first} on")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nobody_is_given_what_another_has() {
        let first = free_addresses(9).unwrap();
        let held = TcpListener::bind(first[0]).unwrap();
        let more: Vec<_> = (0..40).flat_map(|_| free_addresses(3).unwrap()).collect();
        let all: BTreeSet<_> = first.iter().chain(&more).collect();
        assert_eq!(all.len(), 9 + 120);
        // Once around.
        let again: Vec<_> = (0..30).flat_map(|_| free_addresses(3).unwrap()).collect();
        assert!(!again.contains(&held.local_addr().unwrap()));
        assert!(again.contains(&first[1]));
    }
}
