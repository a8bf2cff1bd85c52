//! Control planes over one etcd: what one is told all know, and what they say when it is gone.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client as Etcd};
use tokio::time::sleep;
use tonic::transport::Channel;
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};
use wattle_certs::{Ca, KeyPair};
use wattle_controlplane::{
    app,
    authority::CaFiles,
    config::{Config, StoreChoice},
    store::etcd::EtcdConfig,
};
use wattle_etcd::{EtcdCluster, Version};
use wattle_proto::admin::{
    GetStatusRequest, ListNodesRequest, admin_service_client::AdminServiceClient,
};

use crate::{
    Running, config, folder, start_with,
    whole::{join, operator, token_request},
};

fn on(cluster: &EtcdCluster, data_dir: &Path) -> Config {
    let etcd = EtcdConfig {
        endpoints: cluster.urls().iter().map(|url| url.parse().unwrap()).collect(),
        prefix: Default::default(),
        tls: None,
        user: None,
    };
    Config { store: StoreChoice::Etcd, etcd: Some(etcd), ..config(data_dir) }
}

async fn health(running: &Running, service: &str) -> i32 {
    let mut client = HealthClient::new(running.anonymous().await);
    let request = HealthCheckRequest { service: service.to_owned() };
    client.check(request).await.unwrap().into_inner().status
}

async fn nodes(channel: &Channel) -> usize {
    let request = ListNodesRequest { network: "default".into(), ..Default::default() };
    let answer = AdminServiceClient::new(channel.clone()).list_nodes(request).await;
    answer.unwrap().into_inner().nodes.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_control_planes_on_one_etcd_are_one() {
    let mut cluster = EtcdCluster::start(Version::V36, 1).unwrap();
    let (first, second) = (folder(), folder());
    let one = start_with(on(&cluster, first.path())).await;
    for file in ["ca.crt", "ca.key"] {
        fs::copy(first.path().join(file), second.path().join(file)).unwrap();
    }
    let two = start_with(on(&cluster, second.path())).await;
    assert_eq!(one.replica.trust_domain, two.replica.trust_domain);
    assert_eq!(one.replica.live.epoch(), two.replica.live.epoch());
    assert_ne!(one.replica.id, two.replica.id);

    // A token of the one lets a machine in at the other, and both know it at once.
    let at_one = operator(&one, &first.path().join("operator.json")).await;
    let mut token = token_request();
    token.max_uses = Some(10);
    let made = AdminServiceClient::new(at_one.clone()).create_join_token(token).await;
    let token = made.unwrap().into_inner().token.replace(&one.address, &two.address);
    let key = KeyPair::generate();
    let enrolled = join(&token, "tokyo", &key).await;
    let at_two = operator(&two, &first.path().join("operator.json")).await;
    assert_eq!((nodes(&at_one).await, nodes(&at_two).await), (1, 1));
    let revision = enrolled.revision;
    for live in [&one.replica.live, &two.replica.live] {
        let mut head = live.head();
        head.wait_for(|head| head.0 >= revision).await.unwrap();
    }

    // Others write to the same etcd: that hides nothing and holds nobody up.
    let mut stranger = Etcd::connect(cluster.urls(), None).await.unwrap();
    for i in 0..20 {
        stranger.put("/stranger/key", i.to_string(), None).await.unwrap();
        assert_eq!((nodes(&at_one).await, nodes(&at_two).await), (1, 1));
    }

    // Without the store they say so, and go on with what they have.
    cluster.member_mut(0).kill().unwrap();
    let began = Instant::now();
    while health(&one, "").await != ServingStatus::NotServing as i32 {
        assert!(began.elapsed() < Duration::from_secs(12), "not stale after {:?}", began.elapsed());
        sleep(Duration::from_millis(200)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(5), "a hiccup of etcd's isn't staleness");
    let streams = health(&one, "wattle.sync.v1.SyncService").await;
    assert_eq!(streams, ServingStatus::Serving as i32);

    cluster.run(0).unwrap();
    cluster.wait_until_healthy().unwrap();
    let began = Instant::now();
    while health(&one, "").await != ServingStatus::Serving as i32 {
        assert!(began.elapsed() < Duration::from_secs(12));
        sleep(Duration::from_millis(200)).await;
    }
    let status = AdminServiceClient::new(at_one).get_status(GetStatusRequest::default()).await;
    assert!(!status.unwrap().into_inner().stale);
    one.stop().await;
    two.stop().await;
}

/// An etcd that has run full reads and watches as ever; it takes no heartbeat. Who looks is told why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_has_run_full_is_said_to_have() {
    let quota = ["--quota-backend-bytes", "4194304"];
    let cluster = EtcdCluster::start_with(Version::V36, 1, None, &quota).unwrap();
    let data = folder();
    let one = start_with(on(&cluster, data.path())).await;
    let operator = operator(&one, &data.path().join("operator.json")).await;
    let status = async || {
        let request = GetStatusRequest::default();
        let answer = AdminServiceClient::new(operator.clone()).get_status(request).await;
        answer.unwrap().into_inner()
    };
    let well = status().await;
    assert_eq!((well.stale, well.stale_reason.as_str()), (false, ""));

    let mut etcd = Etcd::connect(cluster.urls(), None).await.unwrap();
    while etcd.put("/stranger/key", vec![7; 500_000], None).await.is_ok() {}
    let began = Instant::now();
    while health(&one, "").await != ServingStatus::NotServing as i32 {
        assert!(began.elapsed() < Duration::from_secs(14), "not stale after {:?}", began.elapsed());
        sleep(Duration::from_millis(200)).await;
    }
    let full = status().await;
    assert!(full.stale && full.stale_reason.contains("database space exceeded"), "{full:?}");

    // As operations.md has it.
    let head = etcd.delete("/stranger/key", None).await.unwrap().header().unwrap().revision();
    etcd.compact(head, None).await.unwrap();
    etcd.defragment().await.unwrap();
    disarm(&mut etcd).await;
    let began = Instant::now();
    while health(&one, "").await != ServingStatus::Serving as i32 {
        assert!(began.elapsed() < Duration::from_secs(14), "stale after {:?}", began.elapsed());
        sleep(Duration::from_millis(200)).await;
    }
    let well = status().await;
    assert_eq!((well.stale, well.stale_reason.as_str()), (false, ""));
    one.stop().await;
}

/// `etcdctl alarm disarm`.
async fn disarm(etcd: &mut Etcd) {
    let (get, off, alarm) = (AlarmAction::Get, AlarmAction::Deactivate, AlarmType::Nospace);
    for raised in etcd.alarm(get, alarm, None).await.unwrap().alarms() {
        let mut member = AlarmOptions::new();
        member.with_member(raised.member_id());
        etcd.alarm(off, alarm, Some(member)).await.unwrap();
    }
}

/// What doesn't fit is refused before anything is made.
#[tokio::test]
async fn an_etcd_that_does_not_answer_is_named() {
    let data = folder();
    let etcd = EtcdConfig {
        endpoints: vec!["http://127.0.0.1:1".parse().unwrap()],
        prefix: Default::default(),
        tls: None,
        user: None,
    };
    let config = Config { store: StoreChoice::Etcd, etcd: Some(etcd), ..config(data.path()) };
    let error = format!("{:#}", app::build(config).await.err().expect("nobody is there"));
    assert!(error.contains("http://127.0.0.1:1") && error.contains("refused"), "{error}");
    assert!(!data.path().join("ca.key").exists(), "a CA without a store");
}

async fn refused(config: Config) -> String {
    format!("{:#}", app::build(config).await.err().expect("it is refused"))
}

/// Any start that took it for a new one would put an empty control plane in the place of the old one, and all
/// others would follow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_was_emptied_is_not_begun_anew() {
    let mut cluster = EtcdCluster::start(Version::V36, 1).unwrap();
    let folders = [folder(), folder(), folder(), folder()];
    let one = start_with(on(&cluster, folders[0].path())).await;
    for folder in &folders[1..] {
        for file in ["ca.crt", "ca.key"] {
            fs::copy(folders[0].path().join(file), folder.path().join(file)).unwrap();
        }
    }
    let two = start_with(on(&cluster, folders[1].path())).await;
    let three = start_with(on(&cluster, folders[2].path())).await;
    let at_one = operator(&one, &folders[0].path().join("operator.json")).await;
    let made = AdminServiceClient::new(at_one).create_join_token(token_request()).await;
    join(&made.unwrap().into_inner().token, "tokyo", &KeyPair::generate()).await;
    let shown = |running: &Running| {
        let live = &running.replica.live;
        (live.epoch(), live.read().networks().map(|network| network.live).sum::<usize>())
    };
    let epoch = one.replica.live.epoch();
    while shown(&two) != (epoch, 1) {
        sleep(Duration::from_millis(20)).await;
    }

    // A typing mistake, on a replica that has served before.
    three.stop().await;
    let mut mistyped = on(&cluster, folders[2].path());
    mistyped.etcd.as_mut().unwrap().prefix = "/watle/".parse().unwrap();
    let error = refused(mistyped).await;
    let url = cluster.urls()[0].clone();
    assert!(error.contains(&format!("in etcd under /watle/ at {url}")), "{error}");
    let parts = ["has served", "store.served", "--etcd-prefix", "restore", "store init"];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");

    cluster.member_mut(0).kill().unwrap();
    cluster.put_back(0, None).unwrap();
    cluster.run(0).unwrap();
    cluster.wait_until_healthy().unwrap();
    let error = refused(on(&cluster, folders[2].path())).await;
    assert!(error.contains("under /wattle/") && error.contains("store init"), "{error}");
    // One that never served finds what the others, who still run, keep there.
    let mut stranger = etcd_client::Client::connect(cluster.urls(), None).await.unwrap();
    let began = Instant::now();
    let all = etcd_client::GetOptions::new().with_prefix();
    while stranger.get("/wattle/v1/", Some(all.clone())).await.unwrap().kvs().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "the others keep nothing there");
        sleep(Duration::from_millis(200)).await;
    }
    let error = refused(on(&cluster, folders[3].path())).await;
    assert!(error.contains("one has left v1/"), "{error}");
    for replica in [&one, &two] {
        assert_eq!(shown(replica), (epoch, 1), "they show what they showed");
    }
    let cluster_record = stranger.get("/wattle/v1/meta/cluster", None).await.unwrap();
    assert!(cluster_record.kvs().is_empty());
    one.stop().await;
    two.stop().await;
}

/// As a Secret's mount: nothing can be written beside the CA, and none is the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_begin_at_once_with_a_ca_by_file() {
    let cluster = EtcdCluster::start(Version::V36, 1).unwrap();
    let (mount, folders) = (folder(), [folder(), folder(), folder()]);
    let ca =
        CaFiles { certificate: mount.path().join("tls.crt"), key: mount.path().join("tls.key") };
    ca.create(&Ca::generate(&"mesh.example".parse().unwrap(), SystemTime::now())).unwrap();
    let config = |n: usize| Config { ca: ca.clone(), ..on(&cluster, folders[n].path()) };
    let (one, two, three) =
        tokio::join!(start_with(config(0)), start_with(config(1)), start_with(config(2)));
    for other in [&two, &three] {
        assert_eq!(other.replica.trust_domain.to_string(), "mesh.example");
        assert_eq!(other.replica.live.epoch(), one.replica.live.epoch());
    }
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 2, "nothing is left there");
    for replica in [one, two, three] {
        replica.stop().await;
    }
}

/// Replicas would go from one to the other whenever they leave a member.
#[tokio::test]
async fn endpoints_of_two_etcds_are_refused() {
    let (one, other) = (folder(), folder());
    let [first, second] = [(); 2].map(|()| EtcdCluster::start(Version::V36, 1).unwrap());
    start_with(on(&first, one.path())).await.stop().await;
    let mut both = on(&first, one.path());
    let addresses = &mut both.etcd.as_mut().unwrap().endpoints;
    addresses.push("http://127.0.0.1:1".parse().unwrap());
    // Members that don't answer are none of two.
    start_with(both.clone()).await.stop().await;
    both.etcd.as_mut().unwrap().endpoints.push(second.urls()[0].parse().unwrap());
    let error = refused(both.clone()).await;
    let named = [&first.urls()[0], &second.urls()[0]].iter().all(|url| error.contains(*url));
    assert!(named && error.contains("name the members of one"), "{error}");
    both.data_dir = other.path().to_owned();
    refused(both).await;
    assert!(!other.path().join("ca.key").exists());
}
