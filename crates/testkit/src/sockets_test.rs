use std::net::{TcpListener, TcpStream};

use super::*;

#[test]
fn our_own_connection_is_ours() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let stream = TcpStream::connect(listener.local_addr().expect("its address")).expect("connect");
    let local = stream.local_addr().expect("local");
    let inode = inode(local, stream.peer_addr().expect("peer")).expect("it is in the table");
    let pid = i32::try_from(std::process::id()).expect("a process id");
    assert!(owns(pid, inode));
    assert!(!owns(1, inode) || pid == 1);
}

#[test]
fn a_table_is_read_as_the_kernel_writes_it() {
    let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  \
                 timeout inode\n   0: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 \
                 00000000     0        0 123456 1 0000000000000000 20 4 30 10 -1\n";
    let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
    assert_eq!(find(table, at("127.0.0.1:50000"), at("127.0.0.1:8080")), Some(123_456));
    assert_eq!(find(table, at("127.0.0.1:8080"), at("127.0.0.1:50000")), None);
}
