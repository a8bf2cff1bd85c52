//! What the agent costs, in ratios to `wg` in the same run: times of an emulated machine mean nothing
//! alone. Prints one line of JSON after `BENCH `, and the table for docs/kernel-benchmarks.md.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use wattle_model::{NodeId, PeerSpec};
use wattle_plan::{Desired, DeviceSpec, EndpointMemory, Op, Update, diff, diff_touched};

use super::{
    again::{PACKETS, applied_again},
    machine::{Machine, numbered, prefixes, program, wait_ping},
    netns::Netns,
};
use crate::{
    kernel::{self, DataPlaneChoice, Kernel, Place},
    wireguard_key,
};

const SIZES: [u32; 4] = [100, 1000, 10_000, 20_000];
/// How often a single change is made, and a whole set; medians are told.
const CHANGES: usize = 15;
const SETS: usize = 3;

#[test]
#[ignore = "a benchmark for a kernel with WireGuard: `make bench-kernel` runs it"]
fn bench() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let (mut delta, mut addconf, mut syncconf) = (ratios(), ratios(), ratios());
    for size in SIZES {
        let figures = apart(|| devices(size));
        println!("| {size} | {figures:?} |");
        delta.insert(size.to_string(), figures.change.0 / figures.change.1);
        addconf.insert(size.to_string(), figures.set.0 / figures.set.1);
        syncconf.insert(size.to_string(), figures.set.0 / figures.set.2);
    }
    let (rss, cpu) = apart(|| resident(5000));
    let (throughput, lost) = apart(|| async {
        let mut machines = tunnels().await;
        (throughput(&machines), applied_again(&mut machines, HAND).await)
    });
    println!("| applied again | {lost:?} |");
    println!("BENCH-CPU {cpu:.2} % of one processor, idle with 5000 peers");
    let figures = json!({
        "kernel": release.trim(),
        "delta_vs_wg_set": rounded(&delta),
        "first_apply_vs_addconf": rounded(&addconf),
        "first_apply_vs_syncconf": rounded(&syncconf),
        "agent_rss_mb": round(rss),
        "throughput_ratio": round(throughput),
        "applied_again_packets": PACKETS,
        "applied_again_lost": {
            "agent": lost.agent,
            "wg_syncconf": lost.syncconf,
            "wg_setconf": lost.setconf,
        },
    });
    println!("BENCH {figures}");
}

/// On a thread and a runtime of its own: threads that a runtime keeps stay in the namespace that
/// they were made in.
fn apart<F: Future>(work: impl FnOnce() -> F + Send) -> F::Output
where
    F::Output: Send,
{
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(work())
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

fn ratios() -> BTreeMap<String, f64> {
    BTreeMap::new()
}

fn rounded(ratios: &BTreeMap<String, f64>) -> Value {
    ratios.iter().map(|(size, ratio)| (size.clone(), json!(round(*ratio)))).collect()
}

fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

/// Milliseconds on devices of one size.
#[derive(Debug)]
struct Figures {
    /// One peer more: ours, `wg set`.
    change: (f64, f64),
    /// All peers: ours, `wg addconf`, `wg syncconf`.
    set: (f64, f64, f64),
}

async fn devices(size: u32) -> Figures {
    let netns = Netns::new();
    netns.enter();
    let peers: Vec<PeerSpec> = (0..size).map(numbered).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peers.conf");
    let key = key_file(&netns, &folder);
    // Where the file names no key, `wg syncconf` takes the link's away.
    let interface =
        format!("[Interface]\nPrivateKey = {}\n", fs::read_to_string(&key).unwrap().trim());
    let sections = peers.iter().map(section);
    fs::write(&file, std::iter::once(interface).chain(sections).collect::<String>()).unwrap();
    let file = file.display();

    let (mut ours, mut add, mut sync) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SETS {
        let mut device = Device::open().await;
        ours.push(device.first_apply(&peers).await);
        device.kernel.remove().await.unwrap();
        for (how, times) in [("addconf", &mut add), ("syncconf", &mut sync)] {
            by_hand(&netns, &key);
            times.push(timed(|| drop(netns.run(&format!("wg {how} hand0 {file}")))));
            netns.run("ip link del hand0");
        }
    }
    let mut device = Device::open().await;
    device.first_apply(&peers).await;
    by_hand(&netns, &key);
    netns.run(&format!("wg addconf hand0 {file}"));
    let (mut change, mut set) = (Vec::new(), Vec::new());
    for more in 0..CHANGES {
        let peer = numbered(100_000 + u32::try_from(more).unwrap());
        let (key, allowed, at) = (peer.public_key, prefixes(&peer), endpoint(&peer));
        let command = format!("wg set hand0 peer {key} endpoint {at} allowed-ips {allowed}");
        set.push(timed(|| drop(netns.run(&command))));
        change.push(device.change(vec![peer], vec![]).await);
    }
    // Starting `ip netns exec` is none of `wg`'s doing.
    let idle = (0..CHANGES).map(|_| timed(|| drop(netns.run("true")))).collect();
    let started = median(idle);
    Figures {
        change: (median(change), (median(set) - started).max(0.01)),
        set: (median(ours), median(add) - started, median(sync) - started),
    }
}

/// As the agent has it: what should be, and the device.
struct Device {
    desired: Desired,
    memory: EndpointMemory,
    kernel: Box<dyn Kernel>,
    own: wattle_model::PublicKey,
}

impl Device {
    /// Up, with its addresses and no peers, as the one made by hand is.
    async fn open() -> Self {
        let private_key = wireguard_key::generate();
        let own = wireguard_key::public(&private_key).unwrap();
        let interface = "wattle0".to_owned();
        let place =
            Place { interface, private_key, other_keys: vec![], listen_port: 0, mark: 0x5747 };
        let kernel = kernel::open(DataPlaneChoice::Kernel, &place).await.unwrap();
        let addresses =
            vec!["10.90.255.254/7".parse().unwrap(), "fd5a:90::ffff:1/64".parse().unwrap()];
        let device = DeviceSpec { listen_port: 0, addresses, mtu: 1420, mark: 0x5747 };
        let desired = Desired::new(NodeId::new([0xee; 16]), device);
        let mut device = Self { desired, memory: EndpointMemory::default(), kernel, own };
        device.first_apply(&[]).await;
        device
    }

    async fn first_apply(&mut self, peers: &[PeerSpec]) -> f64 {
        let begun = Instant::now();
        self.desired.apply(Update::Reset(peers.to_vec()));
        let observed = self.kernel.observe().await.unwrap();
        let ops = diff(&self.desired, &observed, &mut self.memory, begun);
        assert_eq!(self.kernel.apply(&ops).await.unwrap(), []);
        let taken = begun.elapsed();
        let observed = self.kernel.observe().await.unwrap();
        assert_eq!(observed.peers.len(), peers.len());
        let left: Vec<Op> = diff(&self.desired, &observed, &mut self.memory, Instant::now());
        assert_eq!(left, []);
        millis(taken)
    }

    async fn change(&mut self, upserts: Vec<PeerSpec>, removed: Vec<NodeId>) -> f64 {
        let begun = Instant::now();
        let touched = self.desired.apply(Update::Delta { upserts, removed }).unwrap();
        let ops = diff_touched(&self.desired, &touched, self.own, &mut self.memory, begun).unwrap();
        assert_eq!(self.kernel.apply(&ops).await.unwrap(), []);
        millis(begun.elapsed())
    }
}

/// With a key, as the agent's has: without one the kernel leaves a part of each peer's work undone.
fn by_hand(netns: &Netns, key: &str) {
    netns.run("ip link add hand0 type wireguard");
    netns.run(&format!("wg set hand0 private-key {key}"));
    netns.run("ip link set hand0 up");
}

/// A private key that `wg` made, in a file of the folder.
fn key_file(netns: &Netns, folder: &TempDir) -> String {
    let file = folder.path().join("key");
    fs::write(&file, netns.run("wg genkey")).unwrap();
    file.display().to_string()
}

fn section(peer: &PeerSpec) -> String {
    let (key, allowed, at) = (peer.public_key, prefixes(peer), endpoint(peer));
    format!("[Peer]\nPublicKey = {key}\nAllowedIPs = {allowed}\nEndpoint = {at}\n")
}

fn endpoint(peer: &PeerSpec) -> std::net::SocketAddr {
    peer.endpoints[0].socket_addr()
}

/// Resident memory in MB of an agent with this many peers, and its processor time while nothing
/// happens, in percent.
async fn resident(peers: u32) -> (f64, f64) {
    let [one, _two] = Netns::pair();
    let mut machine = Machine::new(one, 1).await;
    machine.start(&program()).await;
    machine.change((0..peers).map(numbered).collect(), &[]).await;
    machine.acked().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let id = machine.process_id();
    let before = cpu_ticks(id);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let cpu = (cpu_ticks(id) - before) / 60.0;
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: f64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    (kib / 1024.0, cpu)
}

/// Hundredths of a second, which a second's percents are.
fn cpu_ticks(id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
}

/// Where the second machine is in the tunnel made by hand.
const HAND: &str = "10.99.0.2";

/// Two machines with two tunnels between them: the agents', and `hand0`.
async fn tunnels() -> [Machine; 2] {
    let [one, two] = Netns::pair();
    let mut machines = [Machine::new(one, 1).await, Machine::new(two, 2).await];
    let (one, two) = (machines[0].spec(), machines[1].spec());
    for (machine, peer) in machines.iter_mut().zip([two, one]) {
        machine.start(&program()).await;
        machine.change(vec![peer], &[]).await;
        machine.acked().await;
    }
    let [one, two] = &machines;
    let keys = [one, two].map(|machine| {
        let folder = tempfile::tempdir().unwrap();
        by_hand(&machine.netns, &key_file(&machine.netns, &folder));
        machine.netns.run("wg set hand0 listen-port 51999");
        machine.netns.run("wg show hand0 public-key").trim().to_owned()
    });
    for (machine, here, there, key) in [(one, 1, 2, &keys[1]), (two, 2, 1, &keys[0])] {
        let peer = format!("peer {key} endpoint 192.168.77.{there}:51999 allowed-ips 10.99.0.0/24");
        machine.netns.run(&format!("wg set hand0 {peer}"));
        machine.netns.run(&format!("ip address add 10.99.0.{here}/24 dev hand0"));
        machine.netns.run("ip link set hand0 mtu 1440");
    }
    machines
}

/// Of the agents' tunnel to the one made by hand.
fn throughput([one, two]: &[Machine; 2]) -> f64 {
    let mut server =
        two.netns.command("iperf3 -s").stdout(std::process::Stdio::null()).spawn().unwrap();
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        for (address, rates) in [("10.90.0.2", &mut ours), (HAND, &mut by_hand)] {
            wait_ping(&one.netns, address);
            let said = one.netns.run(&format!("iperf3 -J -t 6 -O 1 -c {address}"));
            let said: Value = serde_json::from_str(&said).unwrap();
            rates.push(said["end"]["sum_received"]["bits_per_second"].as_f64().unwrap());
        }
    }
    server.kill().unwrap();
    server.wait().unwrap();
    println!("| throughput | {ours:?} {by_hand:?} |");
    median(ours) / median(by_hand)
}

fn timed(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    millis(begun.elapsed())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
