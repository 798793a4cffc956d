use clap::{CommandFactory, Parser};

use super::*;

#[derive(Parser, Debug)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

fn parses(line: &str) -> bool {
    Cli::try_parse_from(line.split(' ')).is_ok()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn lines_that_people_write() {
    for line in [
        "quorate up --masters 3 --nodes 2 --dir d --port-base 7100 --insecure",
        "quorate down --keep-data",
        "quorate status -o json",
        "quorate get pods,svc -A -o wide -w -l app=web --show-labels --no-headers",
        "quorate -n x get pod a b -o jsonpath={.metadata.name}",
        "quorate get all --namespace x",
        "quorate create -f a.yaml -f b.yaml",
        "quorate create deployment web --image i --replicas 3 -- sleep 5",
        "quorate create deploy web --image=i",
        "quorate apply -f - --dry-run=server",
        "quorate run web --image i --port 80 --env A=b --restart Never -- x",
        "quorate delete -f a.yaml --wait=false",
        "quorate delete pod a --grace-period=0 --force",
        "quorate scale deploy/web --replicas=5 --current-replicas=3",
        "quorate logs -f deploy/web -c c --tail=10 --since=5m --timestamps -p",
        "quorate logs web container",
        "quorate logs -l app=web",
        "quorate events --for pod/a -w",
        "quorate rollout status deploy/web --timeout 30s",
        "quorate rollout undo deploy web --to-revision=2",
        "quorate label pod a x=y z- --overwrite",
        "quorate wait --for=condition=Ready pod/a --timeout=30s",
        "quorate completion bash",
        "quorate version --client",
        "quorate get pods --request-timeout=5s --cluster d",
    ] {
        assert!(parses(line), "{line}: {}", Cli::try_parse_from(line.split(' ')).unwrap_err());
    }
}

#[test]
fn lines_that_are_wrong() {
    for line in [
        "quorate get",
        "quorate get pods -o xml",
        "quorate create",
        "quorate apply",
        "quorate run web",
        "quorate delete",
        "quorate scale deploy/web",
        "quorate up --masters 0",
        "quorate get pods --request-timeout=soon",
        "quorate wait pod/a",
        "quorate nonsense",
    ] {
        assert!(!parses(line), "{line}");
    }
}

#[test]
fn usage_errors_end_with_1_and_help_with_0() {
    let code = |line: &str| {
        let code = parse::<Cli>(line.split(' ').map(OsString::from)).map(|_| ()).unwrap_err();
        format!("{code:?}")
    };
    assert_eq!(code("quorate nonsense"), format!("{:?}", ExitCode::FAILURE));
    assert_eq!(code("quorate --help"), format!("{:?}", ExitCode::SUCCESS));
}
