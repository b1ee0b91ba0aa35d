//! Key files are private and checked; a passphrase opens what the key opens, and nothing else.

use super::*;
use crate::repo::testing::quick;
use std::os::unix::fs::PermissionsExt;

/// Argon2 at its least: the tests are about slots, not about the hash.
const QUICK: PassphraseHash = PassphraseHash {
    memory_kib: 8,
    passes: 1,
    lanes: 1,
};

fn id() -> RepositoryId {
    RepositoryId::from_bytes([5; 16])
}

#[test]
fn a_key_file_is_private_never_overwritten_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys/deep/r.key");
    let kek = generate().unwrap();
    create_key_file(&path, &id(), &kek).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert!(read_key_file(&path).unwrap() == kek);
    let again = create_key_file(&path, &id(), &generate().unwrap());
    assert!(again.unwrap_err().to_string().contains("exists already"));
    assert!(read_key_file(&path).unwrap() == kek);
    assert!(generate().unwrap() != kek);
}

#[test]
fn a_key_that_others_may_use_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.key");
    create_key_file(&path, &id(), &generate().unwrap()).unwrap();
    for (mode, fine) in [
        (0o600, true),
        (0o400, true),
        (0o440, true),
        (0o644, false),
        (0o620, false),
    ] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        match read_key_file(&path) {
            Ok(_) => assert!(fine, "{mode:o}"),
            Err(error) => {
                assert!(
                    !fine && error.to_string().contains("chmod 600"),
                    "{mode:o} {error}"
                );
            }
        }
    }
    let missing = read_key_file(&dir.path().join("none")).unwrap_err();
    assert!(missing.to_string().contains("--key-file"));
    assert!(read_key_file(dir.path()).is_err());
}

#[test]
fn a_typing_error_in_a_key_is_found_and_the_key_not_repeated() {
    let kek = Kek::from_bytes([0xab; 32]);
    let good = format!(
        "# c\n\n{KEY_WORD} {} {}\n",
        "ab".repeat(32),
        hex(&kek.fingerprint())
    );
    assert!(parse_key(&good).unwrap() == kek);
    assert!(
        parse_key(
            &good
                .to_ascii_uppercase()
                .replace("HOLDFAST-KEY-1", KEY_WORD)
        )
        .unwrap()
            == kek
    );
    for bad in [
        good.replacen("abab", "acab", 1),
        good.replace(KEY_WORD, "holdfast-key-2"),
        format!("{good}{good}"),
        "# nothing\n".to_owned(),
        "abc".to_owned(),
        String::new(),
    ] {
        let error = parse_key(&bad).unwrap_err();
        assert!(!error.contains("abab"), "{error}");
    }
}

#[tokio::test]
async fn a_passphrase_opens_the_repository_whatever_slots_there_are() {
    let store = Store::open("memory:", &quick()).unwrap();
    let kek = generate().unwrap();
    let config = RepositoryConfig::new(id(), &kek, 1);
    let error = unlock(&store, &config, "a").await.unwrap_err();
    assert!(error.to_string().contains("no passphrase"), "{error}");

    for passphrase in ["first", "zweites ä"] {
        add_passphrase(&store, &config, &kek, passphrase, QUICK)
            .await
            .unwrap();
    }
    assert_eq!(count_passphrases(&store).await.unwrap(), 2);
    assert!(unlock(&store, &config, "first").await.unwrap() == kek);
    assert!(unlock(&store, &config, "zweites ä").await.unwrap() == kek);
    assert!(matches!(
        unlock(&store, &config, "First").await,
        Err(RepoError::WrongKey {
            given: "the passphrase",
            ..
        })
    ));
    assert!(unlock(&store, &config, "").await.is_err());
    let other = generate().unwrap();
    assert!(matches!(
        add_passphrase(&store, &config, &other, "x", QUICK).await,
        Err(RepoError::WrongKey {
            given: "the key",
            ..
        })
    ));

    // A damaged slot does not stop the others, and is named where none opens.
    let slots = store.list(SLOTS).await.unwrap();
    let bytes = store.get(&slots[0].name.unwrap()).await.unwrap();
    store
        .put(&slots[0].name.unwrap(), bytes.slice(..40))
        .await
        .unwrap();
    let mut opened = 0;
    for passphrase in ["first", "zweites ä"] {
        match unlock(&store, &config, passphrase).await {
            Ok(key) => opened += usize::from(key == kek),
            Err(error) => assert!(error.to_string().contains("keys/slots/"), "{error}"),
        }
    }
    assert_eq!(opened, 1);
}

#[test]
fn argon2_gives_what_the_reference_gives() {
    // RFC 9106 has no vector for m = 8 without secret and data; this one is from the reference program:
    // `echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1 -l 32 -r`.
    let params = Params::new(65_536, 2, 1, Some(32)).unwrap();
    let mut out = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(b"password", b"somesalt", &mut out)
        .unwrap();
    let expected = "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7";
    assert_eq!(hex(&out), expected);
}
