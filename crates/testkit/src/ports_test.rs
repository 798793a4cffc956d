use std::net::{Ipv4Addr, TcpListener};

use super::{PortBase, ports};

#[test]
fn two_reservations_differ_and_a_taken_port_is_passed_over() {
    let one = PortBase::reserve(3).unwrap();
    let two = PortBase::reserve(3).unwrap();
    assert_ne!(one.number(), two.number());

    let base = two.number();
    drop(two);
    let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, base + 101)).unwrap();
    assert_ne!(PortBase::reserve(3).unwrap().number(), base);
}

#[test]
fn a_cluster_has_an_endpoint_and_ports_for_each_master_and_the_proxy_before_it() {
    assert_eq!(
        ports(7000, 2).collect::<Vec<_>>(),
        [7000, 7001, 7051, 7101, 7151, 7002, 7052, 7102, 7152]
    );
}
