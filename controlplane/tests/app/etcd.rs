//! Control planes over one etcd: what one is told all know, and what they say when it is gone.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client as Etcd};
use tokio::time::sleep;
use tonic::transport::Channel;
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};
use wattle_certs::KeyPair;
use wattle_controlplane::{
    app,
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
