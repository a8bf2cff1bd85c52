//! Routes and rules: only what the link's own addresses don't bring, and nobody else's.

use std::time::Instant;

use wattle_model::PeerSpec;
use wattle_plan::{
    Desired, EndpointMemory, Family, Maker, Observed, Op, Route, Rule, RuleKind, Table, Update,
    diff,
};

use crate::simulated::*;

fn route(destination: &str, table: Table) -> Route {
    Route { destination: destination.parse().unwrap(), table }
}

fn desired(via: &[&str]) -> Desired {
    let mut desired = Desired::new(OWN, device());
    let name: wattle_model::NodeName = "node-1".parse().unwrap();
    desired.via = via.iter().map(|net| (net.parse().unwrap(), name.clone())).collect();
    desired.apply(Update::Reset(vec![peer(1, 1, Some(1), Some(1)), peer(2, 2, Some(2), None)]));
    desired
}

/// Does what the plan says, until it says nothing; all that it said about routes and rules.
fn reach(device: &mut KernelLike, desired: &Desired) -> Vec<Op> {
    let mut said = Vec::new();
    for _ in 0..3 {
        let mut memory = EndpointMemory::default();
        let ops = diff(desired, &device.observe(), &mut memory, Instant::now());
        ops.iter().for_each(|op| device.execute(op));
        said.extend(ops);
    }
    assert_eq!(plan(desired, &device.observe()), []);
    said.retain(is_routing);
    said
}

fn plan(desired: &Desired, observed: &Observed) -> Vec<Op> {
    let mut ops = diff(desired, observed, &mut EndpointMemory::default(), Instant::now());
    ops.retain(is_routing);
    ops
}

fn is_routing(op: &Op) -> bool {
    matches!(op, Op::AddRoute(_) | Op::RemoveRoute(_) | Op::AddRule(_) | Op::RemoveRule(_))
}

#[test]
fn the_network_s_own_range_needs_no_route() {
    assert_eq!(reach(&mut KernelLike::default(), &desired(&[])), []);
    assert_eq!(reach(&mut KernelLike::default(), &desired(&["10.90.7.0/24"])), []);
}

#[test]
fn what_lies_outside_is_routed_and_no_rule_is_needed() {
    let mut device = KernelLike::default();
    let outside = route("172.20.0.0/16", Table::Main);
    let six = route("2001:db8:7::/48", Table::Main);
    let via = desired(&["172.20.0.0/16", "2001:db8:7::/48"]);
    assert_eq!(reach(&mut device, &via), [Op::AddRoute(outside), Op::AddRoute(six)]);
    let gone = [Op::RemoveRoute(outside), Op::RemoveRoute(six)];
    assert_eq!(reach(&mut device, &desired(&[])), gone);
}

#[test]
fn a_default_route_has_its_own_table_and_rules_and_takes_them_along() {
    let (main, own) = (RuleKind::MainFirst, RuleKind::OwnUnlessMarked);
    let rule = |kind| Rule { family: Family::V4, kind };
    let mut device = KernelLike::default();
    let default = route("0.0.0.0/0", Table::Own);
    let added = [Op::AddRoute(default), Op::AddRule(rule(main)), Op::AddRule(rule(own))];
    assert_eq!(reach(&mut device, &desired(&["0.0.0.0/0"])), added);
    let removed = [Op::RemoveRule(rule(own)), Op::RemoveRule(rule(main)), Op::RemoveRoute(default)];
    assert_eq!(reach(&mut device, &desired(&[])), removed);
}

#[test]
fn somebody_else_s_route_and_address_stay() {
    let mut device = KernelLike::default();
    let desired = desired(&[]);
    reach(&mut device, &desired);
    let mut observed = device.observe();
    observed.routes.insert(route("198.18.0.0/15", Table::Main), Maker::Other);
    observed.addresses.insert("192.0.2.1/32".parse().unwrap());
    assert_eq!(diff(&desired, &observed, &mut EndpointMemory::default(), Instant::now()), []);
    observed.addresses.insert("10.90.0.99/16".parse().unwrap());
    let ops = diff(&desired, &observed, &mut EndpointMemory::default(), Instant::now());
    assert_eq!(ops, [Op::RemoveAddress("10.90.0.99/16".parse().unwrap())], "in the own range");
}

#[test]
fn a_former_address_of_another_range_goes() {
    let mut device = KernelLike::default();
    let mut desired = desired(&[]);
    reach(&mut device, &desired);
    desired.readdress(vec!["10.91.0.1/16".parse().unwrap()]);
    desired.apply(Update::Reset(Vec::<PeerSpec>::new()));
    reach(&mut device, &desired);
    let addresses: Vec<_> = device.observe().addresses.into_iter().collect();
    assert_eq!(addresses, ["10.91.0.1/16".parse().unwrap()]);
}

#[test]
fn a_network_s_route_that_somebody_took_away_comes_back() {
    let mut device = KernelLike::default();
    let desired = desired(&[]);
    reach(&mut device, &desired);
    let mut observed = device.observe();
    let network = route("10.90.0.0/16", Table::Main);
    observed.routes.remove(&network);
    assert_eq!(plan(&desired, &observed), [Op::AddRoute(network)]);
    observed.up = false;
    assert_eq!(plan(&desired, &observed), [], "it comes with the link");
}
