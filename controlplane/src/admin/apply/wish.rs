//! The edge of Apply: what a request asks for becomes values here. What can be told from the request
//! alone is checked here, and a part that is wrong is left out, so that the rest can be checked on.

use std::collections::{BTreeMap, BTreeSet};

use wattle_model::{Labels, Mode, Mtu, NetworkName, Policy, PolicyName, Selector};
use wattle_proto::admin::{self, resource::Kind};

use super::mistakes::{Mistakes, Place};
use crate::admin::convert;

/// Resources, and expectations, of one request. Most of them may be so already.
const MAX_ITEMS: usize = 5000;

/// All that a request asks for, as far as it makes sense.
#[derive(Default)]
pub(super) struct Wishes {
    pub(super) networks: Vec<(Asked, NetworkWish)>,
    pub(super) policies: Vec<(Asked, PolicyWish)>,
    pub(super) labels: Vec<(Asked, LabelsWish)>,
    pub(super) expectations: Vec<(Place, ExpectWish)>,
    /// Networks that the request sets, be it wrongly: they will be there.
    pub(super) made: BTreeSet<NetworkName>,
    /// Where the request counts on a network.
    pub(super) mentions: Vec<(Place, &'static str, NetworkName)>,
}

/// Where a wish stands, and the revision that it was made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) index: usize,
    pub(super) revision: Option<u64>,
}

impl Asked {
    pub(super) const fn place(&self) -> Place {
        Place::Resource(self.index)
    }
}

pub(super) struct NetworkWish {
    pub(super) name: NetworkName,
    pub(super) ipv4_range: Option<String>,
    pub(super) ipv6_range: Option<String>,
    pub(super) mode: Option<Mode>,
    /// How old its nodes' keys may become; 0: as old as they like.
    pub(super) key_rotation_seconds: Option<u64>,
    /// What the path carries, where that is what is wished.
    pub(super) mtu: Option<Option<Mtu>>,
    pub(super) preshared_keys: Option<bool>,
}

pub(super) struct PolicyWish {
    pub(super) network: NetworkName,
    pub(super) name: PolicyName,
    /// `None`: there should be no such policy.
    pub(super) policy: Option<Policy>,
}

pub(super) struct LabelsWish {
    pub(super) network: NetworkName,
    pub(super) node: String,
    pub(super) labels: Labels,
}

pub(super) struct ExpectWish {
    pub(super) network: NetworkName,
    pub(super) node: String,
    pub(super) other: String,
    pub(super) sees: bool,
}

impl Wishes {
    /// Everything that a request asks for; what it can't is added to `mistakes`.
    pub(super) fn read(request: &admin::ApplyRequest, mistakes: &mut Mistakes) -> Self {
        let mut wishes = Self::default();
        for (count, what) in
            [(request.resources.len(), "resources"), (request.expectations.len(), "expectations")]
        {
            if count > MAX_ITEMS {
                let why = format!("at most {MAX_ITEMS} {what} in one request, got {count}");
                mistakes.add(Place::All, "", why);
                return wishes;
            }
        }
        let mut first = BTreeMap::new();
        for (index, resource) in request.resources.iter().enumerate() {
            let asked = Asked { index, revision: resource.revision };
            let place = asked.place();
            if let Some(name) = identity(resource)
                && let Some(earlier) = first.insert(name, index)
            {
                let why = format!("resources[{earlier}] is about the same thing: say it once");
                mistakes.add(place, "", why);
            }
            wishes.resource(asked, resource, mistakes);
        }
        for (index, expectation) in request.expectations.iter().enumerate() {
            wishes.expectation(Place::Expectation(index), expectation, mistakes);
        }
        wishes
    }

    /// Checks what the request counts on: networks that are there, or made by it. What is said of
    /// others is left out.
    pub(super) fn check_networks(
        &mut self,
        is_there: impl Fn(&NetworkName) -> bool,
        mistakes: &mut Mistakes,
    ) {
        let known = |name: &NetworkName| self.made.contains(name) || is_there(name);
        for (place, field, name) in self.mentions.iter().filter(|(_, _, name)| !known(name)) {
            mistakes.add(*place, field, format!("there is no network {name}, nor is it made here"));
        }
        self.policies.retain(|(_, wish)| known(&wish.network));
        self.labels.retain(|(_, wish)| known(&wish.network));
        self.expectations.retain(|(_, wish)| known(&wish.network));
    }

    /// Every network that the request speaks of.
    pub(super) fn all_networks(&self) -> BTreeSet<NetworkName> {
        let mentioned = self.mentions.iter().map(|(_, _, name)| name);
        self.made.iter().chain(mentioned).cloned().collect()
    }

    fn resource(&mut self, asked: Asked, resource: &admin::Resource, mistakes: &mut Mistakes) {
        let place = asked.place();
        if resource.delete && !matches!(resource.kind, Some(Kind::Policy(_)) | None) {
            mistakes.add(place, ".delete", "only policies can be deleted so");
        }
        match &resource.kind {
            None => mistakes.add(place, "", "expected a network, a policy or a node's labels"),
            Some(Kind::Network(spec)) => self.network(asked, spec, mistakes),
            Some(Kind::Policy(spec)) => self.policy(asked, spec, resource.delete, mistakes),
            Some(Kind::Labels(spec)) => self.labels(asked, spec, mistakes),
        }
    }

    fn network(&mut self, asked: Asked, spec: &admin::NetworkSpec, mistakes: &mut Mistakes) {
        let place = asked.place();
        let name = mistakes.take(place, ".network.name", spec.name.parse::<NetworkName>());
        self.made.extend(name.clone());
        let mode = admin::Mode::try_from(spec.mode);
        let mode = mode.map_err(|_| convert::unknown_mode(spec.mode));
        let mode = mistakes.take(place, ".network.mode", mode);
        let mtu = spec.mtu.map(Mtu::wished).transpose();
        let mtu = mistakes.take(place, ".network.mtu", mtu);
        let (ipv4_range, ipv6_range) = (spec.ipv4_range.clone(), spec.ipv6_range.clone());
        let rotation = convert::key_rotation(spec.key_rotation).map_err(|wrong| wrong.why);
        let rotation = mistakes.take(place, ".network.key_rotation", rotation);
        let parts = (name, mode, rotation, mtu);
        if let (Some(name), Some(mode), Some(key_rotation_seconds), Some(mtu)) = parts {
            let mode = convert::mode_of(mode);
            let preshared_keys = spec.preshared_keys;
            let wish = NetworkWish {
                name,
                ipv4_range,
                ipv6_range,
                mode,
                mtu,
                key_rotation_seconds,
                preshared_keys,
            };
            self.networks.push((asked, wish));
        }
    }

    fn policy(
        &mut self,
        asked: Asked,
        spec: &admin::PolicySpec,
        delete: bool,
        mistakes: &mut Mistakes,
    ) {
        let place = asked.place();
        let network = self.mention(place, ".policy.network", &spec.network, mistakes);
        let name = mistakes.take(place, ".policy.name", spec.name.parse::<PolicyName>());
        let policy = if delete {
            None
        } else {
            let from = mistakes.take(place, ".policy.from", Selector::to_keep(&spec.from));
            let to = mistakes.take(place, ".policy.to", Selector::to_keep(&spec.to));
            let (Some(from), Some(to)) = (from, to) else { return };
            Some(Policy { from, to })
        };
        if let (Some(network), Some(name)) = (network, name) {
            self.policies.push((asked, PolicyWish { network, name, policy }));
        }
    }

    fn labels(&mut self, asked: Asked, spec: &admin::LabelsSpec, mistakes: &mut Mistakes) {
        let place = asked.place();
        let node = spec.node.clone().unwrap_or_default();
        let network = self.mention(place, ".labels.node.network", &node.network, mistakes);
        if node.node.is_empty() {
            mistakes.add(place, ".labels.node.node", MISSING);
        }
        // Keys that are reserved now and weren't when they were set may stay.
        let labels = mistakes.take(place, ".labels.labels", Labels::from_stored(&spec.labels));
        if let (Some(network), Some(labels), false) = (network, labels, node.node.is_empty()) {
            self.labels.push((asked, LabelsWish { network, node: node.node, labels }));
        }
    }

    fn expectation(
        &mut self,
        place: Place,
        expectation: &admin::Expectation,
        mistakes: &mut Mistakes,
    ) {
        let network = self.mention(place, ".network", &expectation.network, mistakes);
        let (node, other) = (expectation.node.clone(), expectation.other.clone());
        for (field, node) in [(".node", &node), (".other", &other)] {
            if node.is_empty() {
                mistakes.add(place, field, MISSING);
            }
        }
        if let Some(network) = network {
            let sees = expectation.sees;
            self.expectations.push((place, ExpectWish { network, node, other, sees }));
        }
    }

    fn mention(
        &mut self,
        place: Place,
        field: &'static str,
        name: &str,
        mistakes: &mut Mistakes,
    ) -> Option<NetworkName> {
        let name: NetworkName = mistakes.take(place, field, name.parse())?;
        self.mentions.push((place, field, name.clone()));
        Some(name)
    }
}

const MISSING: &str = "missing: say the node's name or id";

/// What a resource is about, as it is written. A node may be called by its name and by its id: that
/// is found out later.
fn identity(resource: &admin::Resource) -> Option<(u8, &str, &str)> {
    Some(match resource.kind.as_ref()? {
        Kind::Network(spec) => (0, &spec.name, ""),
        Kind::Policy(spec) => (1, &spec.network, &spec.name),
        Kind::Labels(spec) => {
            let node = spec.node.as_ref()?;
            (2, &node.network, &node.node)
        }
    })
}
