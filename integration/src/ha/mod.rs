//! A control plane of three replicas over three members of etcd, agents around it, a proxy in every
//! path between them, and everything that happens recorded for [`wattle_checker`].

mod churn;
mod cluster;
mod etcd;
mod fault;
mod homes;
mod operators;
mod recorder;
mod tap;
mod trial;
mod witness;

pub use self::{
    churn::{Churn, Rate},
    cluster::{HaCluster, REPLICAS},
    etcd::Member,
    fault::Fault,
    homes::{Move, moves},
    operators::Operators,
    recorder::Recorder,
    trial::{Found, Pause, Trial},
    witness::Witness,
};
