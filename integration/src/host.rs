//! Hosts: network namespaces, joined by a bridge in a namespace of its own. Nothing outside of them
//! is touched, and nothing inside can reach the machine's own network.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use crate::run;

static UNDERLAYS: AtomicU32 = AtomicU32::new(0);

/// The network between the hosts: what the mesh's packets travel on.
#[derive(Debug)]
pub struct Underlay {
    switch: Namespace,
    prefix: String,
    /// The addresses of number 0.
    base: (Ipv4Addr, Ipv6Addr),
}

impl Underlay {
    /// Makes an empty one with the private addresses 192.168.77.0/24 and fd77::/64. Needs root.
    pub fn new() -> Result<Self> {
        Self::at(([192, 168, 77, 0].into(), [0xfd77, 0, 0, 0, 0, 0, 0, 0].into()))
    }

    /// One with the public addresses 198.51.100.0/24 and 2001:db8:77::/64: sites behind NAT are told
    /// from it.
    pub fn public() -> Result<Self> {
        Self::at(([198, 51, 100, 0].into(), [0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 0].into()))
    }

    fn at(base: (Ipv4Addr, Ipv6Addr)) -> Result<Self> {
        let count = UNDERLAYS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("wt{}-{count}", std::process::id());
        let switch = Namespace::new(format!("{prefix}-switch"))
            .context("network namespaces need root and iproute2")?;
        switch.ip("link add br0 type bridge")?;
        switch.ip("link set br0 up")?;
        Ok(Self { switch, prefix, base })
    }

    /// The addresses of a host with this number.
    pub fn addresses(&self, number: u8) -> (Ipv4Addr, Ipv6Addr) {
        let (ipv4, ipv6) = self.base;
        let ipv6 = u128::from(ipv6) + u128::from(number);
        ((u32::from(ipv4) + u32::from(number)).into(), ipv6.into())
    }

    /// Adds a host with the addresses of this number.
    pub fn host(&self, name: &str, number: u8) -> Result<Host> {
        let (ipv4, ipv6) = self.addresses(number);
        let host = self.wired(name, &self.switch, "br0", (ipv4, ipv6))?;
        host.ip(&format!("addr add {ipv4}/24 dev eth0"))?;
        host.ip(&format!("addr add {ipv6}/64 dev eth0 nodad"))?;
        Ok(host)
    }

    /// A host whose eth0 is up and leads to a bridge elsewhere.
    pub(crate) fn wired(
        &self,
        name: &str,
        switch: &Namespace,
        bridge: &str,
        (ipv4, ipv6): (Ipv4Addr, Ipv6Addr),
    ) -> Result<Host> {
        let namespace = Namespace::new(format!("{}-{name}", self.prefix))?;
        let host = Host { name: name.to_owned(), namespace, ipv4, ipv6 };
        host.ip("link set lo up")?;
        host.wire(switch, bridge)?;
        Ok(host)
    }

    /// Cuts a host off, or connects it again.
    pub fn plug(&self, host: &Host, connected: bool) -> Result<()> {
        let state = if connected { "up" } else { "down" };
        self.switch.ip(&format!("link set p-{} {state}", host.name))
    }
}

/// A machine of the test.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: Namespace,
    /// Its underlay address.
    pub ipv4: Ipv4Addr,
    /// Its underlay address; unspecified where it has none.
    pub ipv6: Ipv6Addr,
}

impl Host {
    /// What the test calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run on it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace.name]).arg(program);
        command
    }

    /// The file by which this program can enter its network.
    pub(crate) fn namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace.name)
    }

    /// The switch that it is, where it is one.
    pub(crate) const fn switch(&self) -> &Namespace {
        &self.namespace
    }

    /// Runs `ip` on it.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        self.namespace.ip(arguments)
    }

    /// Gives it an eth0 that leads to a bridge, instead of the one that it has.
    pub(crate) fn wire(&self, switch: &Namespace, bridge: &str) -> Result<()> {
        if self.has_link("eth0") {
            self.ip("link del eth0")?;
        }
        let (port, namespace) = (format!("p-{}", self.name), &self.namespace.name);
        switch.ip(&format!("link add {port} type veth peer name eth0 netns {namespace}"))?;
        switch.ip(&format!("link set {port} master {bridge} up"))?;
        self.ip("link set eth0 up")
    }

    /// Whether a link of this name exists.
    pub fn has_link(&self, link: &str) -> bool {
        self.ip(&format!("link show {link}")).is_ok()
    }
}

#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    fn new(name: String) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", &name]))?;
        Ok(Self { name })
    }

    fn ip(&self, arguments: &str) -> Result<()> {
        let arguments = arguments.split_whitespace();
        run(Command::new("ip").args(["-n", &self.name]).args(arguments)).map(|_| ())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing can be done about an error here; the next run uses other names.
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}
