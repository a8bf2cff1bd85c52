//! A site behind NAT: a router on the underlay, with nftables, and a private network behind it.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

use crate::{Host, Underlay, run};

/// What a site's router makes of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// They stay what they are, if nobody else has them.
    KeepsPorts,
    /// Whatever comes from UDP port 51820 goes out from this one, wherever to.
    ChangesPort(u16),
}

/// A router and the network behind it, 10.7.`number`.0/24.
#[derive(Debug)]
pub struct Site {
    router: Host,
    number: u8,
}

impl Site {
    /// Its router has the underlay's addresses of this number.
    pub fn new(underlay: &Underlay, name: &str, number: u8, nat: Nat) -> Result<Self> {
        let router = underlay.host(name, number)?;
        router.ip("link add lan0 type bridge")?;
        router.ip(&format!("addr add {}/24 dev lan0", Self::address(number, 1)))?;
        router.ip("link set lan0 up")?;
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        run(router.command("sh").args(["-c", forward]))?;
        let rules = rules(router.ipv4, nat);
        run(router.command("nft").arg(rules)).context("nft (Debian package nftables)")?;
        Ok(Self { router, number })
    }

    /// Adds a host with the address 10.7.`site`.`number`, and no other.
    pub fn host(&self, underlay: &Underlay, name: &str, number: u8) -> Result<Host> {
        let address = Self::address(self.number, number);
        let addresses = (address, Ipv6Addr::UNSPECIFIED);
        let host = underlay.wired(name, self.router.switch(), "lan0", addresses)?;
        self.address_on(&host, number)?;
        Ok(host)
    }

    /// Has a host of another site move here, with the address of this number.
    pub fn take(&self, host: &Host, number: u8) -> Result<()> {
        host.wire(self.router.switch(), "lan0")?;
        self.address_on(host, number)
    }

    fn address_on(&self, host: &Host, number: u8) -> Result<()> {
        host.ip(&format!("addr add {}/24 dev eth0", Self::address(self.number, number)))?;
        host.ip(&format!("route add default via {}", Self::address(self.number, 1)))
    }

    /// Its router.
    pub const fn router(&self) -> &Host {
        &self.router
    }

    const fn address(site: u8, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 7, site, number)
    }
}

/// Source NAT, and nothing comes in that wasn't asked for. What is unasked for is dropped and not
/// refused, as routers at people's homes do: Linux keeps no trace of it, so it takes no port away
/// from the host whose packets will cross it.
fn rules(address: Ipv4Addr, nat: Nat) -> String {
    let mapped = match nat {
        Nat::KeepsPorts => String::new(),
        Nat::ChangesPort(port) => {
            format!("oifname eth0 udp sport 51820 snat to {address}:{port}; ")
        }
    };
    format!(
        "table ip site {{
            chain out {{
                type nat hook postrouting priority srcnat;
                {mapped}oifname eth0 masquerade;
            }}
            chain in {{
                type filter hook input priority filter; iifname eth0 ct state new drop;
            }}
            chain through {{
                type filter hook forward priority filter; iifname eth0 ct state new drop;
            }}
        }}"
    )
}
