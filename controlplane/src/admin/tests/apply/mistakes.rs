//! Everything that is wrong with a request is said at once, in its order, and nothing is done.

use tonic::Code;
use wattle_proto::admin::{Expectation, LabelsSpec, Mode, NetworkSpec, NodeRef, Resource};

use super::*;
use crate::store::{Store as _, Transaction, keys};

fn starts(found: &[String], expected: &[&str]) {
    let differ = found.iter().zip(expected).find(|(found, start)| !found.starts_with(**start));
    assert!(found.len() == expected.len() && differ.is_none(), "{differ:?} of {found:#?}");
}

#[tokio::test]
async fn an_mtu_that_no_link_can_have_is_told() {
    let world = World::new().await;
    let of_network = |name: &str, ipv4: &str, ipv6: &str, mtu| {
        resource(Kind::Network(NetworkSpec {
            name: name.into(),
            ipv4_range: Some(ipv4.into()),
            ipv6_range: Some(ipv6.into()),
            mtu: Some(mtu),
            ..Default::default()
        }))
    };
    let resources = [
        of_network("a", "10.1.0.0/16", "", 575),
        of_network("b", "10.2.0.0/16", "fd00::/64", 1279),
        of_network("c", "10.3.0.0/16", "", 576),
    ];
    let status = refuse(&world, &resources, &[]).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    starts(
        &violations(&status),
        &[
            "resources[0].network.mtu: 576 to 65455 bytes, got 575",
            "resources[1].network.mtu: 1279 bytes are too few where there is IPv6",
        ],
    );
    apply(&world, &resources[2..], &[]).await;
}

#[tokio::test]
async fn every_mistake_of_a_request_is_told() {
    let world = World::new().await;
    world.node("web-1").await;
    let node = |network: &str, node: &str| NodeRef { network: network.into(), node: node.into() };
    let spec = |name: &str| NetworkSpec { name: name.into(), ..Default::default() };
    let of_network = |spec| resource(Kind::Network(spec));
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let resources = [
        Resource::default(),
        of_network(NetworkSpec { mode: 7, key_rotation: seconds(60), ..spec("Bad Name") }),
        of_network(NetworkSpec { ipv4_range: Some("10.0.0.1/8".into()), ..spec("lab") }),
        of_network(NetworkSpec { ipv6_range: Some("fd00::/16".into()), ..spec("lab6") }),
        of_network(NetworkSpec { ipv4_range: Some("10.90.8.0/24".into()), ..spec("overlaps") }),
        network("default", Some("10.8.0.0/16"), Mode::Unspecified),
        Resource { delete: true, ..network("lab7", None, Mode::Mesh) },
        policy("default/Bad", "a near b", "=x"),
        policy("nowhere/p", "", "role in (a,b"),
        policy("default/same", "a", "b"),
        policy("default/same", "a", "c"),
        labels("default/web-2", &[]),
        labels("default/web-1", &["a=b c"]),
        labels("default/web-1", &["name=x"]),
        labels("lab/web-1", &[]),
        resource(Kind::Labels(LabelsSpec { node: None, ..Default::default() })),
        Resource { revision: Some(7), ..policy("default/stale", "", "") },
        no_policy("nowhere/q"),
        resource(Kind::Labels(LabelsSpec {
            node: Some(node("default", "")),
            ..Default::default()
        })),
    ];
    let expectations = [
        expect("default/web-1", true, "web-9"),
        expect("default/web-1", false, "web-1"),
        expect("nowhere/a", true, "b"),
        Expectation { network: "default".into(), ..Default::default() },
    ];
    let status = refuse(&world, &resources, &expectations).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let found = violations(&status);
    starts(
        &found,
        &[
            "resources[0]: expected a network, a policy or a node's labels",
            "resources[1].network.name: \"Bad Name\" is not a name",
            "resources[1].network.mode: 7 isn't known: choose mesh or closed",
            "resources[1].network.key_rotation: an hour to ten years, or nothing for no limit; got 60",
            "resources[2].network.ipv4_range: 10.0.0.1/8 names an address inside the range",
            "resources[3].network.ipv6_range: /16 can't be a network",
            "resources[4].network.ipv4_range: it overlaps 10.90.0.0/16 of network default",
            "resources[5].network.ipv4_range: nodes live in network default: delete them first",
            "resources[6].delete: only policies can be deleted so",
            "resources[7].policy.name: \"Bad\" is not a name",
            "resources[7].policy.from: ",
            "resources[7].policy.to: ",
            "resources[8].policy.to: ",
            "resources[8].policy.network: there is no network nowhere, nor is it made here",
            "resources[10]: resources[9] is about the same thing: say it once",
            "resources[11].labels.node.node: network default has no node web-2",
            "resources[12].labels.labels: label a: value \"b c\"",
            "resources[13]: resources[12] is about the same thing: say it once",
            "resources[13].labels.labels: label name: reserved",
            "resources[14].labels.node.node: network lab has no node web-1",
            "resources[15].labels.node.network: \"\" is not a name",
            "resources[15].labels.node.node: missing",
            "resources[16].revision: there is no policy default/stale",
            "resources[17].policy.network: there is no network nowhere",
            "resources[18].labels.node.node: missing",
            "expectations[0].other: network default has no node web-9",
            "expectations[1].other: the same node: name two",
            "expectations[2].network: there is no network nowhere",
            "expectations[3].node: missing",
            "expectations[3].other: missing",
        ],
    );
    let message = "resources[0]: expected a network, a policy or a node's labels (and 29 more)";
    assert_eq!(status.message(), message);
}

#[tokio::test]
async fn one_mistake_keeps_everything_else_from_happening() {
    let world = World::new().await;
    world.node("web-1").await;
    let good = [policy("default/a", "", ""), closed(), labels("default/web-1", &["a=b"])];
    let bad = policy("default/b", "a near b", "");
    for place in 0..=good.len() {
        let mut resources = good.to_vec();
        resources.insert(place, bad.clone());
        let status = refuse(&world, &resources, &[]).await;
        assert_eq!(violations(&status).len(), 1, "{status}");
        assert!(status.message().starts_with(&format!("resources[{place}].policy.from: ")));
    }
    apply(&world, &good, &[]).await;
}

#[tokio::test]
async fn two_networks_of_one_request_must_not_overlap_either() {
    let world = World::new().await;
    let both = |name: &str, ipv4: &str, ipv6: &str| {
        let (name, ipv4_range, ipv6_range) = (name.into(), Some(ipv4.into()), Some(ipv6.into()));
        let spec = NetworkSpec { name, ipv4_range, ipv6_range, ..Default::default() };
        resource(Kind::Network(spec))
    };
    let resources =
        [both("a", "10.1.0.0/16", "fd00:1::/64"), both("b", "10.1.4.0/24", "fd00:1::/48")];
    starts(
        &violations(&refuse(&world, &resources, &[]).await),
        &[
            "resources[0].network.ipv4_range: it overlaps 10.1.4.0/24 of network b",
            "resources[0].network.ipv6_range: it overlaps fd00:1::/48 of network b",
            "resources[1].network.ipv4_range: it overlaps 10.1.0.0/16 of network a",
            "resources[1].network.ipv6_range: it overlaps fd00:1::/64 of network a",
        ],
    );
}

#[tokio::test]
async fn a_node_by_name_and_by_id_is_one_node_and_two_are_ambiguous() {
    let world = World::new().await;
    let web = world.node("web-1").await;
    let id = web.node.to_string();
    let twice = [labels("default/web-1", &[]), labels(&format!("default/{id}"), &["a=b"])];
    let told = violations(&refuse(&world, &twice, &[]).await);
    assert_eq!(told, ["resources[1]: resources[0] is about the same node: say it once"]);
    // Another one calls itself what the first one's id is.
    let other = world.node(&id).await;
    let told = violations(&refuse(&world, &twice[1..], &[]).await);
    let ids = format!("{id} is the id of one node and the name of another, {}", other.node);
    starts(&told, &[&format!("resources[0].labels.node.node: {ids}")]);
    apply(&world, &[labels(&format!("default/{}", other.node), &["a=b"])], &[]).await;
}

/// A label whose key was allowed when it was set.
#[tokio::test]
async fn labels_that_were_set_before_their_key_was_reserved_may_stay() {
    let world = World::new().await;
    let web = world.node("web-1").await;
    let old = wattle_model::Labels::from_stored([("name", "x")]).unwrap();
    let loaded = world.nodes.load(web.node).await.unwrap().unwrap();
    let _ = world.store.commit(loaded.relabel(old)).await.unwrap();
    let same = apply(&world, &[labels("default/web-1", &["name=x"])], &[]).await;
    assert_eq!(actions(&same), ["unchanged default/web-1"]);
    let more = refuse(&world, &[labels("default/web-1", &["name=x", "a=b"])], &[]).await;
    starts(&violations(&more), &["resources[0].labels.labels: label name: reserved"]);
    apply(&world, &[labels("default/web-1", &["a=b"])], &[]).await;
}

#[tokio::test]
async fn an_unreadable_record_is_damage_and_no_mistake() {
    let world = World::new().await;
    let key = keys::policy(&"default".parse().unwrap(), &"a".parse().unwrap());
    let rubbish = Transaction::default().put(key, bytes::Bytes::from_static(b"\xff"));
    let _ = world.store.commit(rubbish).await.unwrap();
    let status = refuse(&world, &[policy("default/a", "", "")], &[]).await;
    assert_eq!(status.code(), Code::Internal);
}
