//! Namespaces joined by a switch. They have names of this process and this test alone, and go when
//! dropped, panics included.

use std::{
    fs::File,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sched::{CloneFlags, setns};

static MADE: AtomicU32 = AtomicU32::new(0);

/// A network namespace.
pub(crate) struct Netns(String);

impl Netns {
    pub(crate) fn new() -> Self {
        let name = format!("wtl-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces and devices: run it as root"
        );
        run(&format!("ip netns add {name}"));
        let netns = Self(name);
        netns.ip("link set lo up");
        netns
    }

    /// `ip …` inside, which must succeed; its output.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.0))
    }

    /// A command inside; its output, or what it complained of.
    #[allow(dead_code, reason = "used by the kernel's tests alone")]
    pub(crate) fn try_run(&self, command: &str) -> Result<String, String> {
        let inside = format!("netns exec {} {command}", self.0);
        let output = Command::new("ip").args(inside.split(' ')).output().expect("ip runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Whether a packet to `address` is answered within three seconds.
    pub(crate) fn pings(&self, address: &str) -> bool {
        let ping = format!("netns exec {} ping -n -c 1 -W 3 {address}", self.0);
        let output = Command::new("ip").args(ping.split(' ')).output();
        output.expect("ip and ping run: apt-get install iproute2 iputils-ping").status.success()
    }

    /// How many of `count` packets, one every 10 ms, are not answered.
    pub(crate) fn lost(&self, address: &str, count: u32) -> u32 {
        let arguments = format!("netns exec {} ping -n -i 0.01 -c {count} -W 3 {address}", self.0);
        let output = Command::new("ip").args(arguments.split(' ')).output().expect("ping runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let received = text
            .split(", ")
            .find_map(|part| part.strip_suffix(" received")?.parse::<u32>().ok())
            .unwrap_or_else(|| panic!("ping counts what it received: {text}"));
        count - received
    }

    /// Moves the calling thread, and every thread it starts from now on, inside.
    pub(crate) fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.0)).expect("the namespace is there");
        setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter it");
    }

    /// Names it for another thread.
    pub(crate) fn handle(&self) -> Self {
        Self(self.0.clone())
    }

    /// For a [`Netns::handle`]: it isn't the one to remove it.
    pub(crate) fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let removed = Command::new("ip").args(["netns", "del", &self.0]).status();
        if !std::thread::panicking() {
            assert!(removed.is_ok_and(|status| status.success()), "{} is left behind", self.0);
        }
    }
}

/// A switch with `hosts` namespaces on it, at 192.168.77.1 and up.
pub(crate) struct Lan {
    pub(crate) hosts: Vec<Netns>,
    switch: Netns,
}

impl Lan {
    pub(crate) fn new(hosts: usize) -> Self {
        let switch = Netns::new();
        switch.ip("link add br0 up type bridge");
        let mut lan = Self { hosts: Vec::new(), switch };
        for index in 1..=hosts {
            lan.plug(index);
        }
        lan
    }

    fn plug(&mut self, index: usize) {
        let host = Netns::new();
        let Netns(switch) = &self.switch;
        host.ip(&format!("link add eth0 type veth peer name port{index} netns {switch}"));
        self.switch.ip(&format!("link set port{index} master br0 up"));
        host.ip(&format!("address add 192.168.77.{index}/24 dev eth0"));
        host.ip("link set eth0 up");
        self.hosts.push(host);
    }
}

fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().expect("a command has a name"))
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{command}: {error}: apt-get install iproute2"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
