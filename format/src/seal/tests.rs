use super::*;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([1; 16]);

fn header() -> Header {
    Header {
        kind: ObjectKind::Snapshot,
        key: KeyRef::Domain {
            domain: DomainId::from_bytes([2; 16]),
            generation: 3,
            master: 4,
        },
        salt: [5; 32],
    }
}

fn open(
    repository: &RepositoryId,
    master: &SealingMaster,
    stored: &[u8],
) -> Result<Vec<u8>, FormatError> {
    open_object(
        repository,
        ObjectKind::Snapshot,
        |_| Some(KeyMaterial::Master(master)),
        stored,
    )
}

#[test]
fn an_object_opens_with_its_key_only_and_no_changed_bit_passes() {
    let master = SealingMaster::from_bytes(4, [9; 32]);
    let stored = seal_object(
        &REPOSITORY,
        &header(),
        KeyMaterial::Master(&master),
        b"plain",
    )
    .unwrap();
    assert_eq!(stored.len(), HEADER_BYTES + 5 + TAG_BYTES);
    assert_eq!(open(&REPOSITORY, &master, &stored).unwrap(), b"plain");

    for bit in 0..stored.len() * 8 {
        let mut damaged = stored.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&REPOSITORY, &master, &damaged).is_err(), "bit {bit}");
    }
    for length in 0..stored.len() {
        assert!(open(&REPOSITORY, &master, &stored[..length]).is_err());
    }
    let mut longer = stored.clone();
    longer.push(0);
    assert!(open(&REPOSITORY, &master, &longer).is_err());

    let other = SealingMaster::from_bytes(4, [8; 32]);
    assert!(open(&REPOSITORY, &other, &stored).is_err());
    assert!(open(&RepositoryId::from_bytes([7; 16]), &master, &stored).is_err());
    let kek = Kek::from_bytes([9; 32]);
    let by_kek = |_: &KeyRef| Some(KeyMaterial::Kek(&kek));
    assert!(open_object(&REPOSITORY, ObjectKind::Snapshot, by_kek, &stored).is_err());
    assert!(open_object(&REPOSITORY, ObjectKind::Mark, by_kek, &stored).is_err());
}

#[test]
fn pieces_cannot_change_places_and_numbers_only_rise() {
    let master = SealingMaster::from_bytes(4, [9; 32]);
    let key = KeyMaterial::Master(&master);
    let mut sealer = Sealer::new(&REPOSITORY, &header(), key);
    let zero = sealer.seal(0, b"zero").unwrap();
    let two = sealer.seal(2, b"two").unwrap();
    assert!(sealer.seal(1, b"late").is_err());
    assert!(sealer.seal(2, b"again").is_err());
    sealer.seal(FOOTER_NUMBER, b"footer").unwrap();
    assert!(sealer.seal(FOOTER_NUMBER, b"footer").is_err());
    let opener = Opener::new(&REPOSITORY, &header(), key);
    assert_eq!(opener.open(0, &zero).unwrap(), b"zero");
    assert_eq!(opener.open(2, &two).unwrap(), b"two");
    assert!(opener.open(1, &two).is_err());
    assert!(opener.open(2, &zero).is_err());
}

#[test]
fn headers_round_trip_and_refuse_what_they_do_not_know() {
    let kek = Header {
        kind: ObjectKind::Mark,
        key: KeyRef::Kek,
        salt: [6; 32],
    };
    for header in [header(), kek] {
        assert_eq!(Header::decode(&header.encode()).unwrap(), header);
    }
    for (place, byte) in [(0, b'X'), (4, 2), (6, 0), (6, 11), (7, 2), (8, 1), (24, 1)] {
        let mut bytes = kek.encode();
        bytes[place] = byte;
        assert!(Header::decode(&bytes).is_err(), "{place}");
    }
    assert!(Header::decode(&kek.encode()[..63]).is_err());
}
