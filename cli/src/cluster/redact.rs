//! What is taken out of everything that leaves the cluster in a support bundle. When in doubt it goes: a bundle is
//! sent to people who must not be able to do anything with it.
//!
//! Secrets are never read. Of other objects go: values of variables, arguments, headers, annotations that are not
//! ours, what managers applied, texts whose key sounds like a secret, and what stands in URLs before an @.

use serde_json::{Map, Value};

/// Stands where something was.
pub const GONE: &str = "(redacted)";
/// Keys that sound like secrets, without case, - and _.
const SECRET: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "token",
    "secret",
    "credential",
    "privatekey",
    "apikey",
    "accesskey",
    "authorization",
    "cookie",
    "signature",
];
/// Keys that sound so and name only where one is.
const NAMES: [&str; 8] = [
    "secretname",
    "secretkey",
    "tokenexpirationseconds",
    "passphrasefile",
    "automountserviceaccounttoken",
    "secretref",
    "secretkeyref",
    "serviceaccounttoken",
];
/// Annotations whose values are kept.
const KEPT: [&str; 4] = [
    "holdfast.dev/",
    "checksum/",
    "meta.helm.sh/",
    "kubectl.kubernetes.io/default-container",
];
/// Maps whose values belong to drivers, who put anything there.
const OF_DRIVERS: [&str; 4] = ["volumeAttributes", "parameters", "options", "binaryData"];

/// An object of the API without what may be secret.
pub fn object(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(fields(map)),
        Value::Array(list) => list.iter().map(object).collect(),
        Value::String(said) => Value::String(text(said)),
        other => other.clone(),
    }
}

fn fields(map: &Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    // Variables and headers, in pods, hooks and elsewhere.
    let is_named_value = map.get("name").is_some_and(Value::is_string) && map.contains_key("value");
    for (key, value) in map {
        let kept = match key.as_str() {
            "managedFields" => continue,
            "annotations" => annotations(value),
            "value" if is_named_value => GONE.into(),
            "args" | "command" => words(value),
            "headers" | "httpHeaders" => hidden(value),
            "data" | "stringData" if map.get("kind").is_none_or(|kind| kind != "ConfigMap") => {
                hidden(value)
            }
            "data" => settings(value),
            key if OF_DRIVERS.contains(&key) => hidden(value),
            key if sounds_secret(key) && value.is_string() => GONE.into(),
            _ => object(value),
        };
        out.insert(key.clone(), kept);
    }
    out
}

fn sounds_secret(key: &str) -> bool {
    let plain: String = key
        .chars()
        .filter(|c| !matches!(c, '-' | '_' | '.'))
        .collect::<String>()
        .to_ascii_lowercase();
    !NAMES.contains(&&*plain) && SECRET.iter().any(|word| plain.contains(word))
}

/// Keys, and nothing else.
fn hidden(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .keys()
            .map(|key| (key.clone(), Value::from(GONE)))
            .collect(),
        Value::Array(list) => list.iter().map(|_| Value::from(GONE)).collect(),
        _ => GONE.into(),
    }
}

/// A command: which program, and how many words follow.
fn words(value: &Value) -> Value {
    let Some(list) = value.as_array() else {
        return GONE.into();
    };
    let word = |(at, word): (usize, &Value)| match word.as_str() {
        Some(program)
            if at == 0 && program.starts_with('/') && !program.contains([' ', '=', '@']) =>
        {
            Value::from(program)
        }
        _ => GONE.into(),
    };
    list.iter().enumerate().map(word).collect()
}

fn annotations(value: &Value) -> Value {
    let Some(map) = value.as_object() else {
        return GONE.into();
    };
    let kept = |(key, value): (&String, &Value)| {
        let is_kept = KEPT.iter().any(|prefix| key.starts_with(prefix)) && !key.contains("hook");
        (
            key.clone(),
            if is_kept { object(value) } else { GONE.into() },
        )
    };
    map.iter().map(kept).collect()
}

/// Files of a ConfigMap: settings as we write them, read and cleaned; certificates; of anything else its size.
fn settings(value: &Value) -> Value {
    let Some(map) = value.as_object() else {
        return GONE.into();
    };
    let file = |(key, value): (&String, &Value)| {
        let said = value.as_str().unwrap_or_default();
        let clean = match said {
            _ if key.ends_with(".yaml") => match serde_norway::from_str::<Value>(said) {
                Ok(read) => serde_norway::to_string(&object(&read)).unwrap_or_default(),
                Err(_) => format!("{GONE}: {} bytes that are no YAML", said.len()),
            },
            _ if key == "ca.crt" && !said.contains("PRIVATE KEY") => said.to_owned(),
            _ if key == "server-name" => said.to_owned(),
            _ => format!("{GONE}: {} bytes", said.len()),
        };
        (key.clone(), Value::from(clean))
    };
    map.iter().map(file).collect()
}

/// A text, of logs or messages, without what stands in URLs before an @, without what follows a key that sounds
/// like a secret, and without private keys.
pub fn text(said: &str) -> String {
    let mut out = String::with_capacity(said.len());
    let mut in_key = false;
    for line in said.split_inclusive('\n') {
        if line.contains("PRIVATE KEY-----") {
            in_key = line.contains("-----BEGIN") && !line.contains("-----END");
            out.push_str(GONE);
            out.push_str(if line.ends_with('\n') { "\n" } else { "" });
        } else if !in_key {
            out.push_str(&without_pairs(&without_users(line)));
        }
    }
    out
}

/// `scheme://user:word@host` without the user.
fn without_users(line: &str) -> String {
    let (mut out, mut rest) = (String::new(), line);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'' | '\\') || c.is_whitespace());
        let authority = &after[..end.unwrap_or(after.len())];
        match authority.rfind('@') {
            Some(user) => {
                out.push_str(GONE);
                rest = &after[user..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    out
}

/// `token=word`, `"token":"word"` and `Authorization: Bearer word` without the word.
fn without_pairs(line: &str) -> String {
    let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let (mut out, mut rest) = (String::new(), line);
    while let Some(start) = rest.find(is_key) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c| !is_key(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        out.push_str(word);
        rest = after;
        let is_bearer =
            matches!(&*word.to_ascii_lowercase(), "bearer" | "basic") && after.starts_with(' ');
        let marks = after.len()
            - after
                .trim_start_matches(['"', '\'', '\\', ' ', ':', '='])
                .len();
        let between = &after[..marks];
        let is_pair = sounds_secret(word) && between.contains(['=', ':']);
        if is_pair || is_bearer {
            let value = &after[marks..];
            let stop: &[char] = match between.contains(['"', '\'']) {
                true => &['"', '\'', '\n'],
                false => &[' ', ',', ';', '&', '"', '\'', '\n', '}', ')'],
            };
            let end = value.find(stop).unwrap_or(value.len());
            // The scheme of a header is kept, so that what follows it goes.
            let scheme = matches!(&*value[..end].to_ascii_lowercase(), "bearer" | "basic");
            out.push_str(between);
            if !scheme && end > 0 {
                out.push_str(GONE);
                rest = &value[end..];
            } else {
                rest = value;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const WORD: &str = "hunter2";

    #[test]
    fn nothing_secret_is_left_of_an_object() {
        let pod = json!({
            "kind": "Pod",
            "metadata": {
                "name": "a",
                "managedFields": [{"x": WORD}],
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": format!("{{\"x\":\"{WORD}\"}}"),
                    "holdfast.dev/policy": "daily",
                    "pre.hook.backup.holdfast.dev/command": WORD,
                    "vault/token": WORD,
                },
            },
            "spec": {
                "containers": [{
                    "name": "c", "image": "holdfast:1", "command": ["/usr/bin/holdfast", WORD], "args": [WORD],
                    "env": [{"name": "AWS", "value": WORD}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                    "livenessProbe": {"httpGet": {"path": "/x", "httpHeaders": [{"name": "A", "value": WORD}]}},
                }],
                "volumes": [
                    {"name": "v", "secret": {"secretName": "the-secret"}},
                    {"name": "w", "csi": {"driver": "d", "volumeAttributes": {"password": WORD}}},
                ],
            },
            "status": {"message": format!("cannot reach https://user:{WORD}@host/x?token={WORD}&a=b")},
            "apiToken": WORD,
        });
        let clean = object(&pod);
        let said = clean.to_string();
        assert!(!said.contains(WORD), "{said}");
        for kept in [
            "the-secret",
            "daily",
            "holdfast:1",
            "AWS",
            "\"k\"",
            "host/x",
            "a=b",
            "/usr/bin/holdfast",
        ] {
            assert!(said.contains(kept), "{kept}: {said}");
        }
    }

    #[test]
    fn settings_are_read_and_cleaned() {
        let map = json!({
            "kind": "ConfigMap",
            "data": {
                "coordinator.yaml": format!("repository: {{url: 's3://k:{WORD}@b/p', passphrase_file: /p}}\npassword: {WORD}\n"),
                "other": WORD, "ca.crt": "-----BEGIN CERTIFICATE-----",
            },
        });
        let said = object(&map).to_string();
        assert!(!said.contains(WORD), "{said}");
        assert!(
            said.contains("s3://(redacted)@b/p")
                && said.contains("/p")
                && said.contains("BEGIN CERT"),
            "{said}"
        );
        let secret = json!({"kind": "Secret", "data": {"k": WORD}, "stringData": {"l": WORD}});
        assert!(!object(&secret).to_string().contains(WORD));
    }

    #[test]
    fn texts_lose_what_is_secret_and_nothing_else() {
        for (said, expected) in [
            (
                r#"{"token":"hunter2","n":1}"#,
                r#"{"token":"(redacted)","n":1}"#,
            ),
            ("password=hunter2 next=1", "password=(redacted) next=1"),
            (
                "Authorization: Bearer hunter2",
                "Authorization: Bearer (redacted)",
            ),
            (
                "s3://a:hunter2@b and ftp://c/d@e",
                "s3://(redacted)@b and ftp://c/d@e",
            ),
            (
                "snapshot 0a1b of shop/db stored",
                "snapshot 0a1b of shop/db stored",
            ),
            (
                "secretName: s, aws_secret_access_key = hunter2",
                "secretName: s, aws_secret_access_key = (redacted)",
            ),
            (
                "a\n-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\nb",
                "a\n(redacted)\n(redacted)\nb",
            ),
        ] {
            assert_eq!(text(said), expected);
        }
    }
}
