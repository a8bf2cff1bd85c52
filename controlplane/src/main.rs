//! `wattle-controlplane`: the control plane.

fn main() {}
