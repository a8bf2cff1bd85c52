//! Why two nodes see each other, or don't, shown on one screen.

use std::time::SystemTime;

use serde::Serialize;
use wattle_proto::{Invalid as _, InvalidField, admin};

use super::{Node, Policy, Silent, side};
use crate::{
    console::{Row as _, table},
    text::{self, or_dash},
};

const NOT_KNOWN: &str = "not known";

#[derive(Debug, Serialize)]
pub(crate) struct Explained {
    /// The revision that this is about.
    revision: u64,
    mode: &'static str,
    sees: bool,
    /// The policies that let the two see each other.
    policies: Vec<Policy>,
    node: End,
    other: End,
    /// Replicas whose agents weren't heard.
    pub(crate) silent_replicas: Vec<Silent>,
}

/// One of the two.
#[derive(Debug, Serialize)]
struct End {
    #[serde(flatten)]
    node: Node,
    /// To the other; null where its agent hasn't said.
    tunnel: Option<Tunnel>,
}

#[derive(Debug, Serialize)]
struct Tunnel {
    /// Null where there is none.
    endpoint: Option<String>,
    /// Null where there was none.
    last_handshake: Option<String>,
    #[serde(skip)]
    age: String,
}

impl Explained {
    pub(crate) fn new(
        response: admin::ExplainResponse,
        now: SystemTime,
    ) -> Result<Self, InvalidField> {
        Ok(Self {
            revision: response.revision,
            mode: super::mode(response.mode()),
            sees: response.sees,
            policies: super::all(response.policies)?,
            node: End::new("node", response.node, response.node_tunnel, now)?,
            other: End::new("other", response.other, response.other_tunnel, now)?,
            silent_replicas: Silent::all(response.silent_replicas),
        })
    }

    /// All of it: the answer first, then both nodes side by side.
    pub(crate) fn screen(&self) -> String {
        let rows = [
            self.row("labels", |end| or_dash(text::labels(&end.node.labels))),
            self.row("addresses", |end| end.node.addresses()),
            self.row("online", |end| end.node.online().into()),
            self.row("applied", |end| end.session_cell(4)),
            self.row("lag", |end| end.session_cell(5)),
            self.rejected(),
            self.row("other's endpoint", |end| {
                end.tunnel(|tunnel| or_dash(tunnel.endpoint.as_deref().unwrap_or_default()))
            }),
            self.row("last handshake", |end| end.tunnel(|tunnel| tunnel.age.clone())),
        ];
        let rows = rows.into_iter().flatten().collect();
        let (node, other) = (&self.node.node.name, &self.other.node.name);
        format!("{}\n\n{}", self.answer(), table(&["", node, other], rows))
    }

    fn answer(&self) -> String {
        let (node, other) = (&self.node.node, &self.other.node);
        let (a, b) = (&node.name, &other.name);
        let network = &node.network;
        let at = format!("at revision {}", self.revision);
        match (self.sees, &self.policies[..]) {
            (true, []) => format!(
                "{a} and {b} see each other {at}: network {network} is {}, where everybody sees \
                 everybody.",
                self.mode
            ),
            (true, policies) => {
                let line = |policy: &Policy| {
                    format!("\n  {}: {} and {}", policy.name, side(&policy.from), side(&policy.to))
                };
                let lines: String = policies.iter().map(line).collect();
                format!("{a} and {b} see each other {at}, by policy:{lines}")
            }
            (false, _) => format!(
                "{a} and {b} don't see each other {at}: network {network} is {}, and no policy of \
                 it selects one on one side and the other on the other.\nIt takes a policy with {} \
                 on one side and {} on the other (`wattle apply --help`).",
                self.mode,
                selected(node),
                selected(other),
            ),
        }
    }

    fn row(&self, name: &str, cell: impl Fn(&End) -> String) -> Option<Vec<String>> {
        Some(vec![name.into(), cell(&self.node), cell(&self.other)])
    }

    /// Only where one has refused the other.
    fn rejected(&self) -> Option<Vec<String>> {
        let (node, other) = (self.node.rejects(&self.other), self.other.rejects(&self.node));
        if node.is_none() && other.is_none() {
            return None;
        }
        let cell = |reason: Option<&str>| or_dash(reason.unwrap_or_default());
        Some(vec!["rejected the other".into(), cell(node), cell(other)])
    }
}

/// A selector that this node matches.
fn selected(node: &Node) -> String {
    match node.labels.is_empty() {
        true => format!("id={} (it has no labels)", node.id),
        false => text::labels(&node.labels),
    }
}

impl End {
    fn new(
        field: &'static str,
        node: Option<admin::Node>,
        tunnel: Option<admin::Tunnel>,
        now: SystemTime,
    ) -> Result<Self, InvalidField> {
        let node = Node::try_from(node.field(field)?)?;
        let tunnel = tunnel.map(|tunnel| Tunnel::new(&tunnel, now)).transpose()?;
        Ok(Self { node, tunnel })
    }

    /// As `node list` shows it.
    fn session_cell(&self, column: usize) -> String {
        self.node.cells().swap_remove(column)
    }

    fn tunnel(&self, cell: impl Fn(&Tunnel) -> String) -> String {
        self.tunnel.as_ref().map_or_else(|| NOT_KNOWN.into(), cell)
    }

    fn rejects(&self, other: &Self) -> Option<&str> {
        let rejected = &self.node.session.as_ref()?.rejected;
        let rejection = rejected.iter().find(|one| one.node_id == other.node.id)?;
        Some(&rejection.reason)
    }
}

impl Tunnel {
    fn new(tunnel: &admin::Tunnel, now: SystemTime) -> Result<Self, InvalidField> {
        let endpoint = (!tunnel.endpoint.is_empty())
            .then(|| text::endpoint("tunnel.endpoint", &tunnel.endpoint));
        let age = match &tunnel.last_handshake {
            Some(_) => format!("{} ago", text::ago(tunnel.last_handshake.as_ref(), now)),
            None => "none yet".into(),
        };
        Ok(Self {
            endpoint: endpoint.transpose()?,
            last_handshake: text::time("tunnel.last_handshake", tunnel.last_handshake.as_ref())?,
            age,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    fn node(name: &str, labels: &[(&str, &str)]) -> admin::Node {
        let session = admin::NodeSession {
            online: true,
            applied_revision: 810,
            lag: Some(prost_types::Duration { seconds: 12, nanos: 0 }),
            ..Default::default()
        };
        admin::Node {
            id: Bytes::copy_from_slice(&[name.len() as u8; 16]),
            network: "default".into(),
            name: name.into(),
            ipv4: Bytes::from_static(&[10, 90, 0, 1]),
            public_key: Bytes::from_static(&[2; 32]),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            session: Some(session),
            ..Default::default()
        }
    }

    fn response() -> admin::ExplainResponse {
        admin::ExplainResponse {
            revision: 812,
            mode: admin::Mode::Closed.into(),
            node: Some(node("web-1", &[("role", "web"), ("site", "fra")])),
            other: Some(admin::Node { session: None, ..node("db-11", &[]) }),
            ..Default::default()
        }
    }

    fn explained(response: admin::ExplainResponse) -> Explained {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_090);
        Explained::new(response, now).unwrap()
    }

    #[test]
    fn a_policy_that_lets_them_is_named_with_both_sides() {
        let policy = admin::Policy {
            network: "default".into(),
            name: "web-to-db".into(),
            from: "role=web".into(),
            to: String::new(),
            ..Default::default()
        };
        let tunnel = admin::Tunnel {
            endpoint: Bytes::from_static(&[192, 0, 2, 1, 0xca, 0x6c]),
            last_handshake: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        };
        let response = admin::ExplainResponse {
            sees: true,
            policies: vec![policy],
            node_tunnel: Some(tunnel),
            ..response()
        };
        let explained = explained(response);
        assert_eq!(
            explained.screen(),
            "web-1 and db-11 see each other at revision 812, by policy:\n  \
             web-to-db: role=web and (every node)\n\n\
             \u{20}                 web-1              db-11\n\
             labels            role=web,site=fra  -\n\
             addresses         10.90.0.1          10.90.0.1\n\
             online            yes                no\n\
             applied           810                -\n\
             lag               12s                -\n\
             other's endpoint  192.0.2.1:51820    not known\n\
             last handshake    1m30s ago          not known"
        );
        let json = serde_json::to_value(&explained).unwrap();
        assert_eq!(json["node"]["name"], "web-1");
        assert_eq!(json["node"]["tunnel"]["endpoint"], "192.0.2.1:51820");
        assert_eq!(json["policies"][0]["name"], "web-to-db");
        assert!(json["other"]["tunnel"].is_null());
    }

    #[test]
    fn where_none_does_it_says_what_it_takes() {
        let screen = explained(response()).screen();
        assert!(
            screen.starts_with(
                "web-1 and db-11 don't see each other at revision 812: network default is closed, \
                 and no policy of it selects one on one side and the other on the other.\n\
                 It takes a policy with role=web,site=fra on one side and \
                 id=05050505050505050505050505050505 (it has no labels) on the other"
            ),
            "{screen}"
        );
    }

    #[test]
    fn a_mesh_needs_no_policy() {
        let mode = admin::Mode::Mesh.into();
        let screen = explained(admin::ExplainResponse { mode, sees: true, ..response() }).screen();
        assert!(screen.contains("network default is mesh, where everybody sees everybody."));
    }

    #[test]
    fn a_refused_peer_is_told() {
        let mut response = response();
        let session = response.node.as_mut().unwrap().session.as_mut().unwrap();
        session.rejected = vec![admin::Rejection {
            node_id: Bytes::from_static(&[5; 16]),
            reason: "its address is taken".into(),
        }];
        let screen = explained(response).screen();
        assert!(screen.contains("rejected the other  its address is taken  -"), "{screen}");
    }
}
