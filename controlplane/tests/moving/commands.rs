//! The commands, against a running control plane and without one.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, SystemTime},
};

use tempfile::TempDir;
use wattle_certs::Ca;
use wattle_controlplane::authority::CaFiles;
use wattle_etcd::{EtcdCluster, Version};

/// A machine with a data directory.
pub(crate) struct Machine {
    folder: TempDir,
}

/// All that a command says about a data directory.
pub(crate) fn run_in(data_dir: &Path, arguments: &str) -> String {
    let mut command = program();
    command.args(arguments.split_whitespace()).arg("--data-dir").arg(data_dir);
    let Output { stdout, stderr, .. } = command.output().unwrap();
    String::from_utf8([stdout, stderr].concat()).unwrap()
}

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattle-controlplane"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WATTLE_")) {
        command.env_remove(name);
    }
    command
}

/// A control plane that runs; killed when it is dropped.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = program();
        command.args(arguments.split_whitespace()).arg("--data-dir").arg(self.data());
        command.current_dir(self.folder.path());
        command
    }

    fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn done(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn refused(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn serve(&self) -> Running {
        self.serve_with("")
    }

    fn serve_with(&self, arguments: &str) -> Running {
        let mut command = self.command(&format!("serve --listen 127.0.0.1:0 {arguments}"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("listens on"), "{line:?}");
        Running(child)
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// `digest <hex>` in what was said.
pub(crate) fn digest(said: &str) -> String {
    said.split("digest ").nth(1).unwrap().chars().take(64).collect()
}

#[test]
fn a_backup_is_made_with_and_without_a_running_control_plane_and_restored_once() {
    let (machine, other) = (Machine::new(), Machine::new());
    let running = machine.serve();
    let live = machine.done("backup --out live --with-ca");
    assert!(live.contains("with the CA's private key"), "{live}");
    assert_eq!(mode(&machine.folder.path().join("live")), 0o600);
    let again = machine.refused("backup --out live");
    assert!(again.contains("never overwritten"), "{again}");
    drop(running);
    let offline = machine.done("backup --out offline");
    assert!(offline.contains("keep a copy of it apart"), "{offline}");
    let key = fs::read(machine.data().join("ca.key")).unwrap();
    let text = fs::read(machine.folder.path().join("offline")).unwrap();
    assert!(!text.windows(27).any(|part| part == b"-----BEGIN PRIVATE KEY-----"));

    let file = machine.folder.path().join("live");
    let restored = other.done(&format!("restore --with-ca --in {}", file.display()));
    assert_eq!(digest(&restored), digest(&live));
    assert_eq!(fs::read(other.data().join("ca.key")).unwrap(), key);
    assert_eq!(mode(&other.data().join("ca.key")), 0o600);
    let twice = other.refused(&format!("restore --in {}", file.display()));
    assert!(twice.contains("isn't empty") && twice.contains(".wattle.internal"), "{twice}");
    let running = other.serve();
    let busy = other.refused(&format!("restore --in {}", file.display()));
    assert!(busy.contains("in use by another process"), "{busy}");
    drop(running);

    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let third = Machine::new();
    let cut = third.refused(&format!("restore --in {}", file.display()));
    assert!(cut.contains(&format!("ends at byte {}", bytes.len() / 2)), "{cut}");
    assert!(!third.data().exists(), "nothing is made of a damaged file");
    let none = third.refused("backup --out x");
    assert!(none.contains("there is no store") && !third.data().exists(), "{none}");
    let without = machine.folder.path().join("offline");
    let no_ca = third.refused(&format!("restore --with-ca --in {}", without.display()));
    assert!(no_ca.contains("holds no CA"), "{no_ca}");
    let told = third.done(&format!("restore --in {}", without.display()));
    assert!(told.contains("private key isn't here") && told.contains("ca.key"), "{told}");
}

#[test]
fn a_ca_made_beforehand_is_what_the_first_start_takes() {
    let machine = Machine::new();
    let made = machine.done("ca init --trust-domain mesh.example");
    let pin = |said: &str| {
        let line = said.lines().find(|line| line.starts_with("pin")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    for name in ["ca.crt", "ca.key"] {
        assert_eq!(mode(&machine.data().join(name)), 0o600);
    }
    assert!(machine.refused("ca init").contains("not overwritten"));
    let offline = machine.done("ca show");
    assert!(offline.contains("what the files say") && offline.contains(&pin(&made)), "{offline}");
    let running = machine.serve();
    let shown: serde_json::Value = serde_json::from_str(&machine.done("ca show -o json")).unwrap();
    assert_eq!(shown["trust_domain"], "mesh.example");
    assert_eq!(shown["roots"][0]["pin"], pin(&made).as_str());
    assert_eq!(shown["rotation"], "none");
    assert_eq!(
        (&shown["roots"][0]["signs"], &shown["key_file"]),
        (&true.into(), &pin(&made).into())
    );
    // The new key is lost before it signs: another rotation isn't held up.
    assert!(machine.done("ca rotate --abort").contains("no rotation is under way"));
    let first = machine.done("ca rotate");
    let aborted = machine.done("ca rotate --abort");
    assert!(aborted.contains("no longer trusted") && aborted.contains("given up"), "{aborted}");
    assert!(!machine.data().join("ca-next.key").exists());
    assert_ne!(machine.done("ca rotate"), first);
    fs::remove_file(machine.data().join("ca-next.key")).unwrap();
    let lost = machine.refused("ca rotate --switch");
    assert!(lost.contains("not the new root's key") && lost.contains("--abort"), "{lost}");
    machine.done("ca rotate --abort");
    machine.done("ca rotate");
    machine.done("ca rotate --switch");
    assert!(machine.refused("ca rotate --abort").contains("no way back"));
    drop(running);
    // From now on a CA without its store is a lost store.
    fs::remove_file(machine.data().join("store.redb")).unwrap();
    let lost = machine.refused("serve --listen 127.0.0.1:0");
    assert!(lost.contains("store.redb is lost"), "{lost}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_begins_on_purpose_where_it_does_not_by_itself() {
    let etcd = EtcdCluster::start(Version::V36, 1).unwrap();
    let (machine, url) = (Machine::new(), etcd.urls()[0].clone());
    let file = |name: &str| machine.folder.path().join(name);
    let days = Duration::from_secs(3 * 24 * 3600);
    let ca = Ca::generate(&"mesh.example".parse().unwrap(), SystemTime::now() - days);
    let files = CaFiles { certificate: file("tls.crt"), key: file("tls.key") };
    files.create(&ca).unwrap();
    let place = format!("--store etcd --etcd-endpoints {url} --ca-cert tls.crt --ca-key tls.key");
    let said = machine.refused(&format!("serve --listen 127.0.0.1:0 {place}"));
    assert!(said.contains("tls.crt was made 3days ago") && said.contains("store init"), "{said}");

    let init = format!("store init {place}");
    let said = machine.done(&init);
    assert!(said.contains("new control plane, mesh.example") && said.contains(&url), "{said}");
    let running = machine.serve_with(&place);
    let said = machine.done(&init);
    assert!(said.contains("mesh.example") && said.contains("nothing was changed"), "{said}");
    drop(running);
    drop(machine.serve_with(&place));

    // Those who run would take the new one for their own.
    let _running = machine.serve_with(&place);
    let mut client = etcd_client::Client::connect([&url], None).await.unwrap();
    let all = etcd_client::DeleteOptions::new().with_prefix();
    client.delete("/wattle/v1/meta/", Some(all)).await.unwrap();
    let said = machine.refused(&init);
    assert!(said.contains("a replica runs on it"), "{said}");
}

#[test]
fn an_embedded_store_that_was_lost_begins_anew_on_purpose() {
    let machine = Machine::new();
    drop(machine.serve());
    fs::remove_file(machine.data().join("store.redb")).unwrap();
    assert!(machine.refused("serve --listen 127.0.0.1:0").contains("store init"));
    assert!(machine.done("store init").contains("a new control plane"));
    drop(machine.serve());
}

#[test]
fn a_copy_to_itself_is_refused() {
    let machine = Machine::new();
    let said = machine.refused("store copy --from embedded --to embedded");
    assert!(said.contains("the same store"), "{said}");
}
