//! Network namespaces of these tests, gone with their guards.

use std::{
    fs::File,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sched::{CloneFlags, setns};

static MADE: AtomicU32 = AtomicU32::new(0);

pub(super) struct Netns(String);

impl Netns {
    pub(super) fn new() -> Self {
        let name = format!("wtk-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        run(Command::new("ip").args(["netns", "add", &name]));
        let netns = Self(name);
        netns.run("ip link set lo up");
        netns
    }

    /// Two of them with a wire between: 192.168.77.1 and 192.168.77.2.
    pub(super) fn pair() -> [Self; 2] {
        let both = [Self::new(), Self::new()];
        both[0].run(&format!("ip link add eth0 type veth peer name eth0 netns {}", both[1].0));
        for (netns, number) in both.iter().zip(1..) {
            netns.run(&format!("ip address add 192.168.77.{number}/24 dev eth0"));
            netns.run("ip link set eth0 up");
        }
        both
    }

    /// Moves this thread inside: sockets that it makes from now on are there, and stay.
    pub(super) fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        setns(file, CloneFlags::CLONE_NEWNET).expect("namespaces need root");
    }

    /// A command that runs inside; its arguments are what spaces separate.
    pub(super) fn command(&self, text: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).args(text.split_whitespace());
        command
    }

    /// Runs one that must succeed; its output.
    pub(super) fn run(&self, text: &str) -> String {
        run(&mut self.command(text))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
