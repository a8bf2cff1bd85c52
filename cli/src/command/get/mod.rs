//! `wattle get …`: what is there, as files that `apply` reads.

mod wanted;

use wattle_proto::Invalid as _;
use wattle_proto::admin::{
    self, GetNetworkRequest, LabelsSpec, Mode, NetworkSpec, NodeRef, PolicySpec, Resource,
    resource::Kind,
};

use self::wanted::{Noun, wanted};
use super::{network, node, policy};
use crate::{
    args::Format,
    client::Client,
    console::Console,
    declare::{Document, to_yaml},
    failure::Failure,
    shape,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
-o yaml writes the documents that `wattle apply -f` reads: applied as they are, they change nothing. \
Each has the revision of its last change; `apply` refuses it once somebody else has changed the \
resource. Take the revisions out of files that are kept for long. -o json is an array of the same \
documents, which `apply` reads too. What isn't a wish, such as addresses and whether an agent is \
online, is in `wattle node list -o json`.

Examples:
  wattle get networks
  wattle get policies -n default -o yaml > policies.yaml
  wattle get nodes db-1 db-2 -o yaml
  wattle get policy/web-to-db node/db-1 -o yaml
  wattle get all -o yaml > fleet.yaml")]
pub(crate) struct Args {
    /// networks, policies, nodes or all, then names; or KIND/NAME
    #[arg(required = true, value_name = "KIND [NAME...]|KIND/NAME")]
    what: Vec<String>,
    /// The network they are in; where names are given, default, else every network
    #[arg(short, long)]
    network: Option<String>,
    /// Only nodes with these labels, as in `wattle node list`
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    selector: String,
}

/// What was asked for. A kind that wasn't is absent.
#[derive(Debug, Default)]
struct Got {
    networks: Option<Vec<admin::Network>>,
    policies: Option<Vec<admin::Policy>>,
    nodes: Option<Vec<admin::Node>>,
}

pub(crate) async fn run(
    client: &mut Client,
    args: &Args,
    console: &mut Console,
) -> Result<(), Failure> {
    let mut got = Got::default();
    for (noun, name) in wanted(&args.what)? {
        fetch(client, args, (noun, name), &mut got, console).await?;
    }
    show(got, console)
}

impl Args {
    /// Finds mistakes before the control plane is asked.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        wanted(&self.what).map(drop)
    }
}

async fn fetch(
    client: &mut Client,
    args: &Args,
    wanted: (Noun, Option<String>),
    got: &mut Got,
    console: &mut Console,
) -> Result<(), Failure> {
    let network = |default: &str| args.network.clone().unwrap_or_else(|| default.to_owned());
    match wanted {
        (Noun::Network, None) if args.network.is_none() => {
            got.networks.get_or_insert_default().extend(network::list(client).await?);
        }
        (Noun::Network, name) => {
            let request = GetNetworkRequest { name: name.unwrap_or_else(|| network("")) };
            let network = client.admin.get_network(request).await?.into_inner().network;
            got.networks.get_or_insert_default().push(network.field("network")?);
        }
        (Noun::Policy, None) => {
            let policies = policy::list(client, network("")).await?;
            got.policies.get_or_insert_default().extend(policies);
        }
        (Noun::Policy, Some(name)) => {
            let policy = policy::get(client, network("default"), name).await?;
            got.policies.get_or_insert_default().push(policy.field("policy")?);
        }
        (Noun::Node, None) => {
            let nodes = node::list(client, network(""), args.selector.clone(), console).await?;
            got.nodes.get_or_insert_default().extend(nodes);
        }
        (Noun::Node, Some(name)) => {
            let node = NodeRef { network: network("default"), node: name };
            got.nodes.get_or_insert_default().push(node::get(client, node, console).await?);
        }
    }
    Ok(())
}

fn show(got: Got, console: &mut Console) -> Result<(), Failure> {
    match console.format() {
        Format::Table => tables(got, console),
        Format::Json => console.json(&documents(got)),
        Format::Yaml => {
            let text = to_yaml(&documents(got));
            if text.is_empty() { Ok(()) } else { console.line(text.trim_end()) }
        }
    }
}

fn tables(got: Got, console: &mut Console) -> Result<(), Failure> {
    let mut separate = false;
    let mut gap = |console: &mut Console| {
        let was = std::mem::replace(&mut separate, true);
        if was { console.line("") } else { Ok(()) }
    };
    if let Some(networks) = got.networks {
        gap(console)?;
        console.list::<shape::Network>(&shape::all(networks)?)?;
    }
    if let Some(policies) = got.policies {
        gap(console)?;
        console.list::<shape::Policy>(&shape::all(policies)?)?;
    }
    if let Some(nodes) = got.nodes {
        gap(console)?;
        node::show(shape::all(nodes)?, console)?;
    }
    Ok(())
}

fn documents(mut got: Got) -> Vec<Document> {
    let nodes = got.nodes.get_or_insert_default();
    nodes.sort_by(|a, b| (&a.network, &a.name).cmp(&(&b.network, &b.name)));
    let networks = got.networks.into_iter().flatten().map(of_network);
    let policies = got.policies.into_iter().flatten().map(of_policy);
    let nodes = got.nodes.into_iter().flatten().map(of_node);
    networks.chain(policies).chain(nodes).map(|resource| Document::from(&resource)).collect()
}

fn of_network(network: admin::Network) -> Resource {
    let mode = network.mode();
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let spec = NetworkSpec {
        name: network.name,
        ipv4_range: some(network.ipv4_range),
        ipv6_range: some(network.ipv6_range),
        mode: Mode::into(mode),
        mtu: Some(network.mtu).filter(|mtu| *mtu != 0),
        key_rotation: network.key_rotation,
        preshared_keys: network.preshared_keys.then_some(true),
    };
    resource(Kind::Network(spec), network.revision)
}

fn of_policy(policy: admin::Policy) -> Resource {
    let admin::Policy { network, name, from, to, revision, .. } = policy;
    resource(Kind::Policy(PolicySpec { network, name, from, to }), revision)
}

fn of_node(node: admin::Node) -> Resource {
    let reference = NodeRef { network: node.network, node: node.name };
    let labels = LabelsSpec { node: Some(reference), labels: node.labels };
    resource(Kind::Labels(labels), node.revision)
}

fn resource(kind: Kind, revision: u64) -> Resource {
    Resource { kind: Some(kind), revision: Some(revision), delete: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::tests::console;

    fn got() -> Got {
        let network = admin::Network {
            name: "default".into(),
            ipv6_range: "fd00::/64".into(),
            mode: Mode::Closed.into(),
            mtu: 1380,
            preshared_keys: true,
            revision: 3,
            key_rotation: Some(prost_types::Duration { seconds: 30 * 86400, nanos: 0 }),
            ..Default::default()
        };
        let policy = admin::Policy {
            network: "default".into(),
            name: "web-to-db".into(),
            from: "role=web".into(),
            to: "!test,role in (cache,db)".into(),
            revision: 7,
            ..Default::default()
        };
        let node = |name: &str, labels: &[(&str, &str)]| admin::Node {
            network: "default".into(),
            name: name.into(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            revision: 9,
            public_key: vec![2; 32].into(),
            ..Default::default()
        };
        Got {
            networks: Some(vec![network]),
            policies: Some(vec![policy]),
            nodes: Some(vec![node("web-1", &[]), node("db-1", &[("gpu", "true"), ("role", "db")])]),
        }
    }

    #[test]
    fn yaml_is_what_people_would_write() {
        let (mut console, out, _) = console(Format::Yaml, None);
        show(got(), &mut console).unwrap();
        assert_eq!(
            out.text(),
            "kind: Network\nname: default\nmode: closed\nipv6: fd00::/64\nkey_rotation: \"30d\"\n\
             mtu: 1380\npreshared_keys: true\nrevision: 3\n---\n\
             kind: Policy\nnetwork: default\nname: web-to-db\nfrom: role=web\n\
             to: \"!test,role in (cache,db)\"\nrevision: 7\n---\n\
             kind: Node\nnetwork: default\nname: db-1\nlabels:\n  gpu: \"true\"\n  role: db\n\
             revision: 9\n---\n\
             kind: Node\nnetwork: default\nname: web-1\nlabels: {}\nrevision: 9\n"
        );
    }

    #[test]
    fn tables_stand_apart() {
        let (mut console, out, _) = console(Format::Table, None);
        show(got(), &mut console).unwrap();
        let text = out.text();
        assert!(text.starts_with("NAME     IPV4"), "{text}");
        assert!(text.contains("\n\nNETWORK  NAME       FROM"), "{text}");
        assert!(text.contains("\n\nNAME   ADDRESSES"), "{text}");
    }

    #[test]
    fn json_is_an_array_of_the_same_documents() {
        let (mut console, out, _) = console(Format::Json, None);
        show(Got { nodes: None, networks: None, ..got() }, &mut console).unwrap();
        let json: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(json[0]["kind"], "Policy");
        assert_eq!(json[0]["revision"], 7);
        assert!(out.text().contains("{\n    \"kind\""), "kind comes first: {}", out.text());
    }
}
