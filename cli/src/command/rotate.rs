//! `wattle node rotate-key`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use wattle_proto::{
    Invalid as _,
    admin::{self, GetNodeRequest, KeyRotation, NodeRef, RotateNodeKeyRequest},
};

use super::node;
use crate::{
    client::{Client, request_id},
    console::{Console, Row},
    failure::Failure,
    shape::Node,
};

/// Between two looks at the nodes that are waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each agent makes its next key itself, and no private key leaves its machine. Every peer learns the
next public key before it is used; then the node and its peers change to it at the same commit.
Connections through the tunnel go on: a pair is silent for some tens of milliseconds. At most 4
nodes of a network change at a time, wherever this is asked for. A node whose data plane is the
userspace one can't do this and is refused.

This waits for the nodes that are online. One that isn't changes once it is: `wattle node get`
shows \"key rotation\" until it has. Asking twice is asking once. The exit status is 0 when all that
are online have changed within --timeout.

`wattle network update NAME --key-rotation 30d` does this on schedule.

Examples:
  wattle node rotate-key web-1 web-2
  wattle node rotate-key --all --network prod --timeout 1h")]
pub(crate) struct Args {
    /// The nodes' names or ids
    #[arg(value_name = "NODE", required_unless_present = "all", conflicts_with = "all")]
    nodes: Vec<String>,
    /// All nodes of the network
    #[arg(long)]
    all: bool,
    /// The network they are in
    #[arg(short, long, default_value = "default")]
    network: String,
    /// How long to wait for all of them
    #[arg(long, default_value = "5m", value_parser = super::duration)]
    timeout: Duration,
    /// Ask for it and don't wait
    #[arg(long)]
    no_wait: bool,
}

/// What became of one node.
#[derive(Debug, Serialize)]
struct Rotated {
    name: String,
    id: String,
    network: String,
    public_key: String,
    key_since: Option<String>,
    /// "done", "waiting", "under way" or "offline".
    state: &'static str,
}

/// One node that was asked for, as it was before and as it is.
struct Asked {
    old_key: Bytes,
    now: admin::Node,
}

pub(crate) async fn run(
    client: &mut Client,
    args: Args,
    console: &mut Console,
) -> Result<(), Failure> {
    let nodes = if args.all {
        let all = node::list(client, args.network.clone(), String::new(), console).await?;
        able(all, console)
    } else {
        args.nodes
    };
    let mut asked = Vec::new();
    for node in nodes {
        asked.push(ask(client, NodeRef { network: args.network.clone(), node }).await?);
    }
    let deadline = Instant::now() + args.timeout;
    let mut told = 0;
    while !args.no_wait && asked.iter().any(Asked::is_awaited) && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
        for one in asked.iter_mut().filter(|one| !one.is_done()) {
            one.now = get(client, &one.now).await?;
        }
        let done = asked.iter().filter(|one| one.is_done()).count();
        if std::mem::replace(&mut told, done) != done {
            console.explain(&format!("{done} of {} have changed", asked.len()));
        }
    }
    let late = asked.iter().filter(|one| one.is_awaited()).count();
    let rows: Result<Vec<Rotated>, _> = asked.into_iter().map(Rotated::try_from).collect();
    console.list(&rows?)?;
    match late {
        late if late > 0 && !args.no_wait => Err(Failure::Failed(format!(
            "{late} nodes haven't changed their keys yet: they go on, `wattle node get` shows it"
        ))),
        _ => Ok(()),
    }
}

/// All but those that would be refused.
fn able(all: Vec<admin::Node>, console: &mut Console) -> Vec<String> {
    let (unable, able): (Vec<_>, Vec<_>) = all.into_iter().partition(|node| {
        node.session.as_ref().is_some_and(|session| session.data_plane == "userspace")
    });
    for node in unable {
        console.warn(&format!(
            "{} has a userspace data plane, which can't change its key: left out",
            node.name
        ));
    }
    able.into_iter().map(|node| hex::encode(&node.id)).collect()
}

async fn ask(client: &mut Client, node: NodeRef) -> Result<Asked, Failure> {
    let request = RotateNodeKeyRequest { request_id: request_id(), node: Some(node) };
    let answer = client.admin.rotate_node_key(request).await?.into_inner();
    let before = answer.node.field("node")?;
    let now = get(client, &before).await?;
    Ok(Asked { old_key: before.public_key, now })
}

async fn get(client: &mut Client, node: &admin::Node) -> Result<admin::Node, Failure> {
    let node = NodeRef { network: node.network.clone(), node: hex::encode(&node.id) };
    let answer = client.admin.get_node(GetNodeRequest { node: Some(node) }).await?.into_inner();
    Ok(answer.node.field("node")?)
}

impl Asked {
    fn is_done(&self) -> bool {
        self.now.public_key != self.old_key && self.now.key_rotation() == KeyRotation::Unspecified
    }

    fn is_online(&self) -> bool {
        self.now.session.as_ref().is_some_and(|session| session.online)
    }

    fn is_awaited(&self) -> bool {
        !self.is_done() && self.is_online()
    }
}

impl TryFrom<Asked> for Rotated {
    type Error = wattle_proto::InvalidField;

    fn try_from(asked: Asked) -> Result<Self, Self::Error> {
        let (done, online) = (asked.is_done(), asked.is_online());
        let node = Node::try_from(asked.now)?;
        let state = match node.key_rotation {
            _ if done => "done",
            _ if !online => "offline",
            rotation => rotation.unwrap_or("waiting"),
        };
        let Node { name, id, network, public_key, key_since, .. } = node;
        Ok(Self { name, id, network, public_key, key_since, state })
    }
}

impl Row for Rotated {
    const HEADER: &'static [&'static str] = &["NAME", "STATE", "PUBLIC KEY", "SINCE"];

    fn cells(&self) -> Vec<String> {
        let since = self.key_since.clone().unwrap_or_else(|| "-".into());
        vec![self.name.clone(), self.state.into(), self.public_key.clone(), since]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::tests::listed;

    fn node(key: u8, online: bool, rotation: KeyRotation) -> Asked {
        let session = admin::NodeSession { online, ..Default::default() };
        let now = admin::Node {
            id: Bytes::from_static(&[1; 16]),
            name: "web-1".into(),
            network: "default".into(),
            public_key: vec![key; 32].into(),
            session: Some(session),
            key_rotation: rotation.into(),
            ..Default::default()
        };
        Asked { old_key: vec![1; 32].into(), now }
    }

    #[test]
    fn a_node_is_waited_for_while_it_is_online_and_has_its_old_key() {
        let cases = [
            (node(1, true, KeyRotation::Waiting), "waiting", true),
            (node(1, true, KeyRotation::UnderWay), "under way", true),
            (node(1, false, KeyRotation::Waiting), "offline", false),
            (node(2, true, KeyRotation::UnderWay), "under way", true),
            (node(2, true, KeyRotation::Unspecified), "done", false),
            (node(2, false, KeyRotation::Unspecified), "done", false),
        ];
        for (asked, state, awaited) in cases {
            assert_eq!(asked.is_awaited(), awaited, "{state}");
            assert_eq!(Rotated::try_from(asked).unwrap().state, state);
        }
    }

    #[test]
    fn the_table_says_how_far_each_is() {
        let rotated = Rotated::try_from(node(2, true, KeyRotation::Unspecified)).unwrap();
        let (table, json) = listed(&[rotated]);
        assert!(table.starts_with("NAME   STATE  PUBLIC KEY"), "{table}");
        assert!(table.contains("web-1  done   AgICAgIC"), "{table}");
        assert_eq!((&json[0]["state"], &json[0]["key_since"]), (&"done".into(), &().into()));
    }
}
