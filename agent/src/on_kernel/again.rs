//! What a tunnel loses while one end of it is given once more what it has: by the agent, which is
//! killed and started again, and by `wg`.

use std::{
    fs,
    process::{Child, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{
    machine::{Machine, program, wait_ping},
    netns::Netns,
};

/// Packets of one flow, and the time between them. An end that has lost its session is noticed by
/// the other one after 15 s at the latest: long enough for that.
pub(super) const PACKETS: u32 = 250;
const INTERVAL: &str = "0.1";

/// Lost of so many packets each.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) agent: u32,
    pub(super) syncconf: u32,
    pub(super) setconf: u32,
}

/// The first machine sends to the second one, which has everything applied again. `hand0` is a tunnel
/// between the same two, made by hand.
pub(super) async fn applied_again([one, two]: &mut [Machine; 2], hand: &str) -> Lost {
    let flow = Flow::start(&one.netns, "10.90.0.2").await;
    two.end(Signal::SIGKILL);
    two.start(&program()).await;
    two.acked().await;
    let agent = flow.lost();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hand0.conf");
    let mut lost = Vec::new();
    for how in ["syncconf", "setconf"] {
        let flow = Flow::start(&one.netns, hand).await;
        fs::write(&file, two.netns.run("wg showconf hand0")).unwrap();
        two.netns.run(&format!("wg {how} hand0 {}", file.display()));
        lost.push(flow.lost());
    }
    Lost { agent, syncconf: lost[0], setconf: lost[1] }
}

/// Pings on their way.
struct Flow(Child);

impl Flow {
    /// They have begun, and are answered.
    async fn start(from: &Netns, to: &str) -> Self {
        wait_ping(from, to);
        let mut ping = from.command(&format!("ping -n -q -i {INTERVAL} -c {PACKETS} -W 3 {to}"));
        let flow = Self(ping.stdout(Stdio::piped()).spawn().unwrap());
        tokio::time::sleep(Duration::from_secs(2)).await;
        flow
    }

    /// Waits for the last of them.
    fn lost(self) -> u32 {
        let said = String::from_utf8(self.0.wait_with_output().unwrap().stdout).unwrap();
        let received = said.split(", ").find_map(|part| part.strip_suffix(" received"));
        PACKETS - received.unwrap().parse::<u32>().unwrap()
    }
}
