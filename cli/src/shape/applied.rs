//! What applying files came to, shown: each resource, and what it means for sight.

use serde::Serialize;
use wattle_proto::admin::{self, Mode, applied::Action, resource::Kind};

use super::{Progress, sight::Sight};
use crate::{declare, text};

#[derive(Debug, Serialize)]
pub(crate) struct Applied {
    /// The revision at which all of it holds; of a dry run, the one it was compared with.
    pub(crate) revision: u64,
    pub(crate) dry_run: bool,
    pub(crate) resources: Vec<Resource>,
    pub(crate) sight: Vec<Sight>,
    /// How far it has come; null where nobody waited.
    pub(crate) progress: Option<Progress>,
    /// Of the last change to what the files declare, where there was one.
    #[serde(skip)]
    since: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Resource {
    /// "network", "policy" or "node".
    kind: &'static str,
    name: String,
    /// "unchanged", "created", "updated" or "deleted".
    action: &'static str,
}

impl Applied {
    /// `resources` are those that were sent.
    pub(crate) fn new(
        response: admin::ApplyResponse,
        resources: &[admin::Resource],
        dry_run: bool,
    ) -> Self {
        let shown = |(applied, sent): (&admin::Applied, &admin::Resource)| {
            let (kind, name) = declare::named(sent);
            // The control plane knows a node's name where the file has its id.
            let name = text::some(&applied.name).unwrap_or(name);
            Resource { kind, name, action: word(applied.action()) }
        };
        let resources = response.applied.iter().zip(resources).map(shown).collect();
        let becomes =
            response.applied.iter().filter_map(|applied| applied.after.as_ref()?.kind.as_ref());
        let modes = becomes.filter_map(|kind| match kind {
            Kind::Network(network) => Some((network.name.clone(), network.mode())),
            Kind::Policy(_) | Kind::Labels(_) => None,
        });
        let modes: Vec<_> = modes.collect();
        let sight = response.sight.into_iter().map(Sight::from).collect();
        let after = response.applied.iter().filter_map(|applied| applied.after.as_ref());
        let since = after.filter_map(|after| after.revision).max();
        let revision = response.revision;
        let mut applied = Self { revision, dry_run, resources, sight, progress: None, since };
        modes.iter().for_each(|(network, mode)| applied.in_mode(network, *mode));
        applied
    }

    /// Networks in which nobody sees more or fewer, where the files don't say in which mode they are.
    pub(crate) fn unexplained(&self) -> Vec<String> {
        let sight = self.sight.iter().filter(|sight| sight.is_unexplained());
        sight.map(|sight| sight.network.clone()).collect()
    }

    /// Says in which mode a network is.
    pub(crate) fn in_mode(&mut self, network: &str, mode: Mode) {
        let of = self.sight.iter_mut().filter(|sight| sight.network == network);
        of.for_each(|sight| sight.mode = Some(mode));
    }

    /// The revision at which what the files declare became so; `None` where nothing ever was.
    pub(crate) fn since(&self) -> Option<u64> {
        if self.changes() { Some(self.revision) } else { self.since }
    }

    pub(crate) fn changes(&self) -> bool {
        self.resources.iter().any(|resource| resource.action != "unchanged")
    }

    /// A line for each resource and each network, and what it came to.
    pub(crate) fn lines(&self) -> Vec<String> {
        let dry = if self.dry_run { " (dry run)" } else { "" };
        let resource = |one: &Resource| format!("{} {} {}{dry}", one.kind, one.name, one.action);
        let mut lines: Vec<_> = self.resources.iter().map(resource).collect();
        lines.extend(self.sight.iter().map(Sight::line));
        let revision = self.revision;
        lines.push(match (self.dry_run, self.changes()) {
            (_, false) => format!("all of it is so already (revision {revision})"),
            (true, true) => format!("nothing was changed (compared with revision {revision})"),
            (false, true) => format!("applied (revision {revision})"),
        });
        if self.dry_run {
            lines.extend(self.sight.iter().filter_map(Sight::nodes));
        }
        lines
    }
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::Unspecified => "unknown",
        Action::Unchanged => "unchanged",
        Action::Created => "created",
        Action::Updated => "updated",
        Action::Deleted => "deleted",
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use wattle_proto::admin::{PolicySpec, resource::Kind};

    use super::*;

    fn applied(dry_run: bool, actions: &[Action]) -> Applied {
        let policy = |at| PolicySpec {
            network: "default".into(),
            name: format!("p{at}"),
            ..Default::default()
        };
        let resources: Vec<_> = (0..actions.len())
            .map(|at| admin::Resource {
                kind: Some(Kind::Policy(policy(at))),
                ..Default::default()
            })
            .collect();
        let answer =
            |action: &Action| admin::Applied { action: (*action).into(), ..Default::default() };
        let node = |name: &str| admin::NodeSightChange {
            node_id: Bytes::from_static(&[5; 16]),
            name: name.into(),
            gained: 1200,
            lost: 3,
        };
        let sight = admin::SightChange {
            network: "default".into(),
            pairs_gained: 1_234_567,
            pairs_lost: 3,
            nodes_changed: 1003,
            nodes: vec![node("web-1"), node("db-1")],
        };
        let response = admin::ApplyResponse {
            revision: 812,
            applied: actions.iter().map(answer).collect(),
            sight: vec![sight],
        };
        Applied::new(response, &resources, dry_run)
    }

    #[test]
    fn each_resource_has_a_line_and_the_last_one_says_the_revision() {
        let lines = applied(false, &[Action::Created, Action::Unchanged, Action::Deleted]).lines();
        assert_eq!(
            lines,
            [
                "policy default/p0 created",
                "policy default/p1 unchanged",
                "policy default/p2 deleted",
                "sight in default: pairs gained 1,234,567, lost 3; nodes changed 1,003",
                "applied (revision 812)",
            ]
        );
        let mut nobody = applied(false, &[Action::Updated]);
        nobody.sight[0].nodes_changed = 0;
        assert_eq!(nobody.lines()[1], "sight in default: as it was");
        assert_eq!(nobody.unexplained(), ["default"]);
        nobody.in_mode("default", Mode::Closed);
        assert_eq!(nobody.lines()[1], "sight in default: as it was");
        nobody.in_mode("default", Mode::Mesh);
        assert_eq!(
            nobody.lines()[1],
            "sight in default: as it was (it is a mesh: everybody sees everybody, whatever its \
             policies say)"
        );
        assert_eq!(nobody.unexplained(), [""; 0]);
        let lines = applied(false, &[Action::Unchanged]).lines();
        assert_eq!(lines.last().unwrap(), "all of it is so already (revision 812)");
    }

    #[test]
    fn a_dry_run_names_the_nodes_that_would_change() {
        let lines = applied(true, &[Action::Updated]).lines();
        assert_eq!(lines[0], "policy default/p0 updated (dry run)");
        assert_eq!(
            lines[2..].join("\n"),
            "nothing was changed (compared with revision 812)\n\n\
             NODE           GAINS   LOSES\n\
             default/web-1  +1,200  -3\n\
             default/db-1   +1,200  -3\n\
             … and 1,001 nodes more"
        );
    }

    #[test]
    fn programs_are_told_the_same() {
        let json = serde_json::to_value(applied(true, &[Action::Updated])).unwrap();
        assert_eq!(json["resources"][0]["action"], "updated");
        assert_eq!(json["resources"][0]["name"], "default/p0");
        assert_eq!((&json["dry_run"], &json["revision"]), (&true.into(), &812.into()));
        assert_eq!(json["sight"][0]["nodes"][1]["name"], "db-1");
        assert!(json["progress"].is_null());
    }
}
