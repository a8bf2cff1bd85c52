//! Routes into the link and the rules beside them.
//!
//! What lies in the overlay's own ranges needs none: the kernel makes that route with the link's
//! address. A route that would take the tunnel's own packets, too, goes into a table of its own, and
//! rules keep marked packets out of it.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::{DeviceSpec, Maker, Observed, Op};

/// Half of all addresses: VPNs lay two of these over a default route.
const HALF: u8 = 1;

/// A prefix that is routed into the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// The table it is in.
    pub table: Table,
}

/// A routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// The one that everybody uses.
    Main,
    /// This device's alone: its number is the device's mark.
    Own,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A policy-routing rule of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Whose packets.
    pub family: Family,
    /// What it says.
    pub kind: RuleKind,
}

/// What a rule says. They hold in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleKind {
    /// The main table first, all but its default routes: neighbours stay neighbours.
    MainFirst,
    /// Then the device's own table, for all packets but the tunnel's own.
    OwnUnlessMarked,
}

impl Route {
    /// A default route, or half of one, would take the tunnel's own packets.
    fn new(destination: IpNet) -> Self {
        let own = destination.prefix_len() <= HALF;
        Self { destination, table: if own { Table::Own } else { Table::Main } }
    }

    const fn family(&self) -> Family {
        match self.destination {
            IpNet::V4(_) => Family::V4,
            IpNet::V6(_) => Family::V6,
        }
    }
}

/// The routes there should be: one for each network of the link's addresses, which the kernel makes
/// by itself, and one for each of the peers' prefixes outside of those.
fn wanted<'a>(spec: &DeviceSpec, prefixes: impl Iterator<Item = &'a IpNet>) -> BTreeSet<Route> {
    let networks: Vec<IpNet> = spec.addresses.iter().map(IpNet::trunc).collect();
    let outside = prefixes.filter(|prefix| !networks.iter().any(|net| net.contains(*prefix)));
    outside.copied().map(Route::new).collect()
}

/// What makes the routes and rules right; the link is up once `device` is done.
pub(crate) fn routes<'a>(
    spec: &DeviceSpec,
    observed: &Observed,
    prefixes: impl Iterator<Item = &'a IpNet>,
) -> Vec<Op> {
    let wanted = wanted(spec, prefixes);
    let rules: BTreeSet<Rule> = wanted.iter().flat_map(rules_of).collect();
    let unneeded_rules = observed.rules.iter().rev().filter(|rule| !rules.contains(rule));
    let mut ops: Vec<Op> = unneeded_rules.copied().map(Op::RemoveRule).collect();
    let connected: Vec<Route> = connected(spec, observed).collect();
    let unneeded = observed.routes.iter().filter(|(route, maker)| {
        **maker == Maker::Us && !wanted.contains(route) && !is_connected(spec, route)
    });
    ops.extend(unneeded.map(|(route, _)| Op::RemoveRoute(*route)));
    let missing = wanted.into_iter().chain(connected);
    let missing = missing.filter(|route| !observed.routes.contains_key(route));
    ops.extend(missing.map(Op::AddRoute));
    // After the routes: until then nothing looks into the table.
    ops.extend(rules.difference(&observed.rules).copied().map(Op::AddRule));
    ops
}

/// The networks of addresses that the link has already: while one comes, or the link goes up, the
/// kernel makes the route.
fn connected(spec: &DeviceSpec, observed: &Observed) -> impl Iterator<Item = Route> {
    let there = spec.addresses.iter().filter(|net| observed.up && observed.addresses.contains(net));
    there.map(|net| Route { destination: net.trunc(), table: Table::Main })
}

fn is_connected(spec: &DeviceSpec, route: &Route) -> bool {
    route.table == Table::Main && spec.addresses.iter().any(|net| net.trunc() == route.destination)
}

/// Rules are needed for routes in the own table alone.
fn rules_of(route: &Route) -> Vec<Rule> {
    let family = route.family();
    let kinds = match route.table {
        Table::Main => &[][..],
        Table::Own => &[RuleKind::MainFirst, RuleKind::OwnUnlessMarked],
    };
    kinds.iter().map(|kind| Rule { family, kind: *kind }).collect()
}
