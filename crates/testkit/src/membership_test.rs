use super::*;

#[test]
fn a_place_outlives_whoever_has_it() {
    assert_eq!(successor("m1"), "m1-2");
    assert_eq!(successor("m1-2"), "m1-3");
    assert_eq!((place("m3-14"), place("m3")), ("m3", "m3"));
    assert_eq!(number("m12-3"), 12);
}

#[test]
fn ports_move_with_the_place() {
    assert_eq!(move_ports("http://127.0.0.1:21001", 1, 4), "http://127.0.0.1:21004");
    assert_eq!(move_ports("127.0.0.1:21102", 2, 4), "127.0.0.1:21104");
}

#[test]
fn flags_are_replaced_or_added() {
    let mut command: Vec<String> = ["master", "--name", "m1"].map(str::to_owned).to_vec();
    set(&mut command, "--name", "m1-2".to_owned());
    set(&mut command, "--listen", "127.0.0.1:1".to_owned());
    assert_eq!(command, ["master", "--name", "m1-2", "--listen", "127.0.0.1:1"]);
    assert_eq!(value_of(&command, "--listen"), Some("127.0.0.1:1"));
}
