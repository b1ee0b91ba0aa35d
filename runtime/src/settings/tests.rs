//! Every error at once, the environment wins, nothing unknown passes, nothing secret is printed.

use super::*;
use std::time::Duration;

fn settings(text: &str, variables: &[(&str, &str)]) -> Settings {
    let variables = variables
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()));
    Settings::from_text("test.yaml", text, variables)
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
    let text = "grpc:\n  port: 1\n  name: a\nretry:\n  wait: 5m\nvolumes: [x, y]\n";
    let mut settings = settings(
        text,
        &[
            ("HOLDFAST_GRPC_PORT", "2"),
            ("PATH", "/bin"),
            ("HOLDFAST_TAGS", "p, q,"),
        ],
    );
    assert_eq!(settings.get("grpc.port", 0_u16), 2);
    assert_eq!(settings.get("grpc.name", String::new()), "a");
    assert_eq!(settings.get("retry.tries", 7_u32), 7);
    assert_eq!(
        settings.get("retry.wait", Span(Duration::ZERO)).0,
        Duration::from_secs(300)
    );
    assert_eq!(settings.list::<String>("volumes"), ["x", "y"]);
    assert_eq!(settings.list::<String>("tags"), ["p", "q"]);
    let effective = settings.finish().unwrap().to_string();
    assert_eq!(
        effective,
        "grpc.port=2, grpc.name=a, retry.tries=7, retry.wait=5m, volumes=x,y, tags=p,q"
    );
}

#[test]
fn every_error_is_reported_at_once() {
    let text = "grpc:\n  port: many\n  prot: 3\nextra: {deep: 1}\nempty:\n";
    let mut settings = settings(
        text,
        &[
            ("HOLDFAST_RETRY_WAIT", "5 parsecs"),
            ("HOLDFAST_GRPC_PROT", "1"),
        ],
    );
    settings.get("grpc.port", 0_u16);
    settings.get("retry.wait", Span(Duration::ZERO));
    settings.required::<String>("store.url");
    settings.refuse("two rules disagree");
    let errors = settings.finish().unwrap_err();
    let all = errors.to_string();
    for part in [
        "test.yaml: grpc.port: \"many\"",
        "HOLDFAST_RETRY_WAIT: \"5 parsecs\": must be a number with a unit",
        "store.url is missing (variable HOLDFAST_STORE_URL)",
        "two rules disagree",
        "unknown key grpc.prot; did you mean grpc.port?",
        "unknown key extra.deep",
        "unknown key empty",
        "unknown variable HOLDFAST_GRPC_PROT; did you mean HOLDFAST_GRPC_PORT?",
    ] {
        assert!(all.contains(part), "{part} not in {all}");
    }
}

#[test]
fn a_file_that_is_no_mapping_or_not_there_is_an_error_among_others() {
    for text in ["[1, 2]", "a: b: c", "- x"] {
        assert!(settings(text, &[]).finish().is_err(), "{text}");
    }
    assert!(settings("", &[]).finish().is_ok());
    let mut missing = Settings::read(Some(Path::new("/no/such.yaml")), []);
    missing.required::<String>("store.url");
    assert_eq!(missing.finish().unwrap_err().0.len(), 2);
}

#[test]
fn secrets_stay_hidden_and_come_from_files_too() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "from-file\n").unwrap();
    let text = format!(
        "a:\n  key: sesame\nb:\n  key_file: {}\n",
        file.path().display()
    );
    let mut settings = settings(&text, &[]);
    let (a, b) = (
        settings.secret("a.key").unwrap(),
        settings.secret("b.key").unwrap(),
    );
    assert_eq!((a.reveal(), b.reveal()), ("sesame", "from-file"));
    let printed = format!("{a:?} {:?}", settings.finish().unwrap());
    assert!(!printed.contains("sesame"), "{printed}");
}

#[test]
fn structures_are_checked_by_serde() {
    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Volume {
        name: String,
    }
    let mut good = settings("volumes:\n  - name: a\n", &[]);
    assert_eq!(
        good.structure::<Vec<Volume>>("volumes").unwrap()[0].name,
        "a"
    );
    good.finish().unwrap();
    let mut bad = settings("volumes:\n  - nam: a\n", &[]);
    assert!(bad.structure::<Vec<Volume>>("volumes").is_none());
    assert!(bad.finish().unwrap_err().to_string().contains("nam"));
}

#[test]
fn variables_that_kubernetes_sets_for_services_are_no_settings() {
    let links = [
        ("HOLDFAST_COORDINATOR_SERVICE_HOST", "10.0.0.1"),
        ("HOLDFAST_COORDINATOR_SERVICE_PORT", "7270"),
        ("HOLDFAST_COORDINATOR_SERVICE_PORT_GRPC", "7270"),
        ("HOLDFAST_COORDINATOR_PORT", "tcp://10.0.0.1:7270"),
        ("HOLDFAST_COORDINATOR_PORT_7270_TCP_ADDR", "10.0.0.1"),
    ];
    settings("", &links).finish().unwrap();
}

#[test]
fn units_round_trip() {
    for (text, bytes) in [
        ("0", 0),
        ("64KiB", 65_536),
        ("32 MiB", 32 << 20),
        ("10MB", 10_000_000),
    ] {
        let count: ByteCount = text.parse().unwrap();
        assert_eq!(count.0, bytes);
        assert_eq!(count.to_string().parse::<ByteCount>().unwrap(), count);
    }
    for text in ["0", "250ms", "90s", "5m", "24h", "7d"] {
        let span: Span = text.parse().unwrap();
        assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
    }
    for bad in [
        "",
        "5",
        "-1s",
        "1y",
        "99999999999999999999s",
        "18446744073709551615d",
    ] {
        assert!(bad.parse::<Span>().is_err(), "{bad}");
    }
    for bad in ["", "-1", "1 XiB", "18446744073709551615KiB"] {
        assert!(bad.parse::<ByteCount>().is_err(), "{bad}");
    }
}

#[test]
fn variables_of_the_command_are_no_mistake_here_and_are_told() {
    let mut settings = settings(
        "",
        &[
            ("HOLDFAST_COORDINATOR", "http://127.0.0.1:7270"),
            ("HOLDFAST_STATE_DIR", "/srv/state"),
        ],
    );
    // One that is a setting here as well is one.
    assert_eq!(settings.get("state.dir", String::new()), "/srv/state");
    assert_eq!(
        settings.finish().unwrap().to_string(),
        "state.dir=/srv/state, (variables of the holdfast command, ignored)=HOLDFAST_COORDINATOR"
    );
}

#[test]
fn each_mapping_of_a_list_is_read_like_a_file() {
    let read = |text: &str| {
        let mut settings = Settings::from_text("test.yaml", text, []);
        let rows = settings.tables("rows", |row| {
            let size = row.required::<u64>("size").unwrap_or(0);
            if size > 9 {
                row.refuse("size must be below 10");
            }
            (size, row.get("name", String::from("none")))
        });
        (rows, settings.finish())
    };
    let (rows, effective) = read("rows:\n- {size: 1}\n- {size: 2, name: b}");
    assert_eq!(rows, [(1, "none".to_owned()), (2, "b".to_owned())]);
    let effective = effective.unwrap().to_string();
    assert!(effective.contains("rows[1].name=b"), "{effective}");
    for empty in ["", "rows:", "rows: []"] {
        let (rows, effective) = read(empty);
        assert!(rows.is_empty() && effective.is_ok(), "{empty}");
    }
    let (_, errors) = read("rows:\n- {size: 10}\n- {sise: 1}\n- x");
    let errors = errors.unwrap_err().to_string();
    for part in [
        "test.yaml: rows[0]: size must be below 10",
        "test.yaml: rows[1]: size is missing",
        "test.yaml: rows[1]: unknown key sise; did you mean size?",
        "test.yaml: rows[2]: must be a mapping",
    ] {
        assert!(errors.contains(part), "{part} in {errors}");
    }
    let (_, errors) = read("rows: {size: 1}");
    assert!(
        errors
            .unwrap_err()
            .to_string()
            .contains("rows: must be a list")
    );
}
