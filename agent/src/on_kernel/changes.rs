//! A session between two machines loses no packet, whatever happens to the others, and to the
//! agents.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use nix::sys::signal::Signal;
use wattle_model::Endpoint;

use super::{
    machine::{Machine, numbered, program, wait_ping},
    netns::Netns,
};

#[tokio::test]
#[ignore = "needs a kernel with WireGuard: `make test-kernel` runs it"]
async fn a_thousand_changes_and_a_killed_a_stopped_and_an_upgraded_agent_cost_no_packet() {
    let [one, two] = Netns::pair();
    let mut machines = [Machine::new(one, 1).await, Machine::new(two, 2).await];
    let (one, two) = (machines[0].spec(), machines[1].spec());
    let program = program();
    for (machine, peer) in machines.iter_mut().zip([two, one]) {
        machine.start(&program).await;
        machine.change(vec![peer], &[]).await;
        machine.acked().await;
    }
    wait_ping(&machines[0].netns, "10.90.0.2");
    let upgraded = tempfile::tempdir().unwrap();
    let new_program = upgraded.path().join("wattle-agent-new");
    std::fs::copy(&program, &new_program).unwrap();

    let flow = Flow::start(&machines[0].netns);
    for change in 0..1000 {
        let mut peer = numbered(change / 4 % 100);
        for machine in &mut machines {
            match change % 4 {
                0 => machine.change(vec![peer.clone()], &[]).await,
                1 => {
                    peer.name = "renamed".parse().unwrap();
                    machine.change(vec![peer.clone()], &[]).await;
                }
                2 => {
                    let elsewhere = format!("192.168.77.251:{}", 1000 + change);
                    peer.endpoints = vec![Endpoint::new(elsewhere.parse().unwrap()).unwrap()];
                    machine.change(vec![peer.clone()], &[]).await;
                }
                _ => machine.change(vec![], &[peer.node]).await,
            }
            if change % 50 == 49 {
                machine.acked().await;
            }
        }
        let restart = match change {
            249 => Some((Signal::SIGKILL, &program)),
            499 => Some((Signal::SIGTERM, &program)),
            749 => Some((Signal::SIGTERM, &new_program)),
            _ => None,
        };
        if let Some((signal, program)) = restart {
            let machine = &mut machines[(change / 250 % 2) as usize];
            machine.end(signal);
            machine.start(program).await;
        }
    }
    let (sent, lost) = flow.stop();
    println!("{sent} packets through 1000 changes and 3 restarts, {lost} lost");
    assert!(sent > 200, "{sent}");
    assert_eq!(lost, 0);
    for machine in &machines {
        let peers = machine.netns.run("wg show wattle0 peers");
        assert_eq!(peers.lines().count(), 1, "{peers}");
        assert!(!machine.log().contains("somebody changed the interface"), "{}", machine.log());
    }
}

/// Pings without a break; the last of each hundred has three seconds to be answered.
struct Flow(Arc<AtomicBool>, JoinHandle<(u32, u32)>);

impl Flow {
    fn start(netns: &Netns) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let mut command = netns.command("ping -n -q -i 0.02 -c 100 -W 3 10.90.0.2");
        let stop = done.clone();
        let pings = std::thread::spawn(move || {
            let (mut sent, mut lost) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                let output = command.output().unwrap();
                let said = String::from_utf8(output.stdout).unwrap();
                let received = said.split(", ").find_map(|part| part.strip_suffix(" received"));
                let received: u32 = received.expect("ping counts").parse().unwrap();
                (sent, lost) = (sent + 100, lost + 100 - received);
            }
            (sent, lost)
        });
        Self(done, pings)
    }

    fn stop(self) -> (u32, u32) {
        self.0.store(true, Ordering::Relaxed);
        self.1.join().unwrap()
    }
}
