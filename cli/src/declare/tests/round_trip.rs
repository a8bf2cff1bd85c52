//! What is written is read again as the same.

use proptest::{collection::btree_map, option, prelude::*};
use wattle_proto::admin::{
    LabelsSpec, Mode, NetworkSpec, NodeRef, PolicySpec, Resource, resource::Kind,
};

use super::{
    super::{Document, named, to_yaml},
    read,
};

fn name() -> impl Strategy<Value = String> {
    // Words that YAML takes for something else are names, too.
    prop_oneof![
        "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?",
        Just("null".to_owned()),
        Just("no".to_owned()),
        Just("0x1f".to_owned()),
        Just("1e3".to_owned()),
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9_.-]{0,12}", Just("true".to_owned()), Just("-".to_owned())]
}

fn key() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9][a-zA-Z0-9_./-]{0,12}".prop_filter("reserved", |key| key != "id" && key != "name")
}

fn selector() -> impl Strategy<Value = String> {
    let requirement =
        (key(), value(), value(), 0..6).prop_map(|(key, one, other, form)| match form {
            0 => format!("{key}={one}"),
            1 => format!("{key}!={one}"),
            2 => format!("{key} in ({one},{other})"),
            3 => format!("{key} notin ( {one} , {other} )"),
            4 => key,
            _ => format!("!{key}"),
        });
    proptest::collection::vec(requirement, 0..4).prop_map(|requirements| requirements.join(", "))
}

fn network() -> impl Strategy<Value = Kind> {
    let ipv4 = option::of(prop_oneof![
        Just(String::new()),
        (0..=255_u8).prop_map(|part| format!("10.{part}.0.0/16"))
    ]);
    let ipv6 = option::of(prop_oneof![
        Just(String::new()),
        (0..=0xffff_u16).prop_map(|part| format!("fd00:{part:x}::/64"))
    ]);
    let mtu = option::of(prop_oneof![Just(0), 576..=65_455_u32]);
    let mode = prop_oneof![Just(Mode::Unspecified), Just(Mode::Mesh), Just(Mode::Closed)];
    let age = (0..400_000_000_i64).prop_map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    let preshared = option::of(any::<bool>());
    (name(), ipv4, ipv6, mode, mtu, option::of(age), preshared).prop_map(
        |(name, ipv4_range, ipv6_range, mode, mtu, key_rotation, preshared_keys)| {
            Kind::Network(NetworkSpec {
                name,
                ipv4_range,
                ipv6_range,
                mode: mode.into(),
                mtu,
                key_rotation,
                preshared_keys,
            })
        },
    )
}

fn policy() -> impl Strategy<Value = Kind> {
    (name(), name(), selector(), selector())
        .prop_map(|(network, name, from, to)| Kind::Policy(PolicySpec { network, name, from, to }))
}

fn labels() -> impl Strategy<Value = Kind> {
    (name(), name(), btree_map(key(), value(), 0..6)).prop_map(|(network, node, labels)| {
        Kind::Labels(LabelsSpec { node: Some(NodeRef { network, node }), labels })
    })
}

fn resource() -> impl Strategy<Value = Resource> {
    (prop_oneof![network(), policy(), labels()], option::of(any::<u64>()), any::<bool>()).prop_map(
        |(kind, revision, delete)| match kind {
            Kind::Policy(policy) if delete => {
                let policy = PolicySpec { from: String::new(), to: String::new(), ..policy };
                Resource { kind: Some(Kind::Policy(policy)), revision, delete }
            }
            kind => Resource { kind: Some(kind), revision, delete: false },
        },
    )
}

proptest! {
    #[test]
    fn resources_written_are_read_as_the_same(
        resources in proptest::collection::vec(resource(), 1..6)
    ) {
        let mut resources = resources;
        let mut seen = std::collections::HashSet::new();
        resources.retain(|resource| seen.insert(named(resource)));
        let documents: Vec<_> = resources.iter().map(Document::from).collect();
        for text in [to_yaml(&documents), serde_json::to_string_pretty(&documents).unwrap()] {
            match read(&text) {
                Ok(declared) => prop_assert_eq!(declared.resources(), resources.clone(), "{}", text),
                Err(failure) => prop_assert!(false, "{}\n{}", failure, text),
            }
        }
    }
}
