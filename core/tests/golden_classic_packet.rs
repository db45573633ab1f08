//! Golden bytes of the packet transport: what the real fence_virt 4.12.1 sent over TCP to a recording peer, with the keys
//! that signed it, and its conversations with either end of ours in the place of the other. `k4096.key` is SHAKE-256 of "fencewire vector key", 4,096 bytes of it. If this fails, do not change it.

use fencewire_core::classic::key::{Hash, Key, Tag, WeakHash};
use fencewire_core::classic::packet::{
    Fresh, RequestPacket, Unproved, decode_request, decode_unsigned, encode_request, encode_unsigned,
};
use fencewire_core::classic::serial::{END_OF_LIST, encode_entry};
use fencewire_core::{
    Answer, Ask, Client, Endpoint, Entropy, Event, ListEntry, Listener, Millis, Power, PowerAction, Refusal, Reply,
    Signing, Speak, Target, Trust, Uuid,
};
use sha2::{Digest, Sha512};

struct Vector {
    action: &'static str,
    target: &'static str,
    key: &'static str,
    hash: Hash,
    random: &'static str,
    seqno: u32,
    request: &'static str,
    client_challenge: &'static str,
    server_answer: &'static str,
    server_challenge: &'static str,
    client_answer: &'static str,
}

/// Unsigned: hash and auth "none".
const UNSIGNED: &str = "050000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
         000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
         00000000000000003ea30c00000000000000000000000000000000000000000000000000000000000000000000000000\
         0000000000000000000000000000000000000000000000000000000000000000";

const VECTORS: [Vector; 5] = [
    Vector {
        action: "reboot",
        target: "nfs-server1",
        key: "k4096",
        hash: Hash::Sha256,
        random: "f9d13507f371",
        seqno: 767_637,
        request: "020200006e66732d73657276657231000000000000000000000000000000000000000000000000000000000000000000\
         000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
         0000f9d13507f37195b60b0000000000966268dc1b8612f690fe3e133bc9ba20c0b33e530581ef683a9be4bbea74143b\
         0000000000000000000000000000000000000000000000000000000000000000",
        client_challenge: "d6f71adbda4a6aa260ead66f0c6908f9a0e8beef2ad95039027e00dcfa907a11019ac250786084df97fedc2a0d2c4d33\
         eec59055ac4efa849ad3fd6531cc9909",
        server_answer: "253d727039f00497a86273bab10f509045d2f234580f9baf02b2becddd57917000000000000000000000000000000000\
         00000000000000000000000000000000",
        server_challenge: "0385a146037004b2d0a85b0f05a0c7d2d7a2e1038d90916b99195443290bcb081ad12e0c9ef5c6c5f24ef7d1ee2bba42\
         57aea880fe0fb58da378f6bc8ca7bb76",
        client_answer: "64a6804671b7c10acb96bf7309c4170bcc6516b45b3f29e1208a97e45ca029f300000000000000000000000000000000\
         00000000000000000000000000000000",
    },
    Vector {
        action: "off",
        target: "b33f94f9-8a30-4e83-9165-fd8681ee13cf",
        key: "k32",
        hash: Hash::Sha256,
        random: "1979ec829ad4",
        seqno: 780_203,
        request: "0102000062333366393466392d386133302d346538332d393136352d6664383638316565313363660000000000000000\
         000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
         00001979ec829ad4abe70b00000000005a3e485bfd60b83b3913a23b8f4922ffa54b33a8808957942cf899e6088f2116\
         0000000000000000000000000000000000000000000000000000000000000000",
        client_challenge: "0624343d13da1d1694ce54929c1a07d1ce131242c7994839db0468d6a4341fcbdc7e8aa3b33016fbcc013987b3ed76a8\
         3bce4353735a6955de1d71e19967303d",
        server_answer: "c890c7092719f1bb82b5455c758309768821ed82387f184b10c898b51a1b874800000000000000000000000000000000\
         00000000000000000000000000000000",
        server_challenge: "0385a146037004b2d0a85b0f05a0c7d2d7a2e1038d90916b99195443290bcb081ad12e0c9ef5c6c5f24ef7d1ee2bba42\
         57aea880fe0fb58da378f6bc8ca7bb76",
        client_answer: "7b0c34ddd644cc86324625a06012107d546aa75b55348cfe890436a492c75ce500000000000000000000000000000000\
         00000000000000000000000000000000",
    },
    Vector {
        action: "status",
        target: "nfs-server2",
        key: "k64",
        hash: Hash::Sha512,
        random: "9e07bbfe2f9b",
        seqno: 792_275,
        request: "040300006e66732d73657276657232000000000000000000000000000000000000000000000000000000000000000000\
         000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
         00009e07bbfe2f9bd3160c000000000030e3ce552d7a22def4a0706445fdf76186700df7457830715141ea5a09b4c339\
         498374cdbc90bd322239d932f9c847ec6a489a9842aca212bdfaae04b56779bd",
        client_challenge: "0ae21ef63a8c2103f14a74f194823843538b3aff004d70571f080ec7347385a83381fcc08823954c6bfee841fda568af\
         03f28f6ab2c5802957aabeed75839f5a",
        server_answer: "668150f44027e4cebeaf170ed717b18d1ed2aa470f15a3131cd149c1fc88e3b8ad91ee63048e9c599684af7ee1928ffe\
         913cf3307ec5c04dbc9da76eaf7f638c",
        server_challenge: "0385a146037004b2d0a85b0f05a0c7d2d7a2e1038d90916b99195443290bcb081ad12e0c9ef5c6c5f24ef7d1ee2bba42\
         57aea880fe0fb58da378f6bc8ca7bb76",
        client_answer: "dbf5c44e3ad215dfeb03fae6d57d32b30e8721627bd7dd946df2f4fd9327f24a1b8d0ea77b6edb551d84157ecd19e9d9\
         168cd82750defbeb41cdfe0fd05c6048",
    },
    Vector {
        action: "off",
        target: "vm",
        key: "k32",
        hash: Hash::Sha256,
        random: "b4a1a3f06d5b",
        seqno: 840_226,
        request: "01020000766d000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
         000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
         0000b4a1a3f06d5b22d20c000000000092b4a93d7561764f668e7f8ba7f2b6c73cdae09b558df9dbde47b711d73b4f9d\
         0000000000000000000000000000000000000000000000000000000000000000",
        client_challenge: "13cb8cb4769edb746b28039dc0e067a8542aca190e6c005e6785c343fd4db6a807ad31b308c24cfca5755ae0396c60e4\
         5a4784b7d0d77f403cccdd1cfd725381",
        server_answer: "cabd8502e6e1a2fd27ca13f2efb6a2dbf3427312ce8d0ecee03e7681693438ff00000000000000000000000000000000\
         00000000000000000000000000000000",
        server_challenge: "0385a146037004b2d0a85b0f05a0c7d2d7a2e1038d90916b99195443290bcb081ad12e0c9ef5c6c5f24ef7d1ee2bba42\
         57aea880fe0fb58da378f6bc8ca7bb76",
        client_answer: "7b0c34ddd644cc86324625a06012107d546aa75b55348cfe890436a492c75ce500000000000000000000000000000000\
         00000000000000000000000000000000",
    },
    Vector {
        action: "list",
        target: "",
        key: "k32",
        hash: Hash::Sha256,
        random: "e327ac4ada88",
        seqno: 888_233,
        request: "060200000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
         000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
         0000e327ac4ada88a98d0d00000000009afaa8987a87a0824dc6cb7d83e5f6e9c7db1cd2c1baf968db3d227579d62ecf\
         0000000000000000000000000000000000000000000000000000000000000000",
        client_challenge: "13c8777c79a76388a4ce6f429781de56229d41677006cc8a6c82d34a705bba331d22ea6868f678f9d7eeccd0215de910\
         1db81a40b4ae024f32707b7fc30e312f",
        server_answer: "d0be0d6a67eec282a69768cb27c319749e8530e66b0aef310970aa87f6a2d0f600000000000000000000000000000000\
         00000000000000000000000000000000",
        server_challenge: "0385a146037004b2d0a85b0f05a0c7d2d7a2e1038d90916b99195443290bcb081ad12e0c9ef5c6c5f24ef7d1ee2bba42\
         57aea880fe0fb58da378f6bc8ca7bb76",
        client_answer: "7b0c34ddd644cc86324625a06012107d546aa75b55348cfe890436a492c75ce500000000000000000000000000000000\
         00000000000000000000000000000000",
    },
];

impl Vector {
    fn key(&self) -> Key {
        key(self.key)
    }

    fn ask(&self) -> Ask {
        let target = || Target::parse(self.target.as_bytes()).unwrap();
        match self.action {
            "off" => Ask::Power(PowerAction::Off, target()),
            "reboot" => Ask::Power(PowerAction::Reboot, target()),
            "status" => Ask::Status(target()),
            "list" => Ask::List,
            other => panic!("no vector has {other}"),
        }
    }
}

fn key(name: &str) -> Key {
    let file = match name {
        "k4096" => include_bytes!("vectors/k4096.key").to_vec(),
        "k32" => (0..32).collect(),
        "k64" => Sha512::digest(b"k").to_vec(),
        other => panic!("no vector has {other}"),
    };
    Key::absorb(&file).unwrap()
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    let digits: Vec<u8> =
        hex.bytes().map(|digit| u8::try_from((digit as char).to_digit(16).unwrap()).unwrap()).collect();
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    bytes.try_into().unwrap()
}

#[test]
fn the_real_clients_requests_are_read() {
    for vector in &VECTORS {
        let packet: RequestPacket = bytes(vector.request);
        let read = decode_request(&packet, vector.hash, &vector.key());
        assert_eq!(read.map(|(ask, _)| ask), Ok(vector.ask()), "{} {}", vector.action, vector.target);
    }
}

#[test]
fn asked_the_same_the_same_bytes_are_sent() {
    for vector in &VECTORS {
        let fresh = Fresh { random: bytes(vector.random), seqno: vector.seqno };
        let packet = encode_request(&vector.ask(), fresh, vector.hash, &vector.key());
        assert_eq!(packet, bytes(vector.request), "{} {}", vector.action, vector.target);
    }
}

#[test]
fn challenges_are_answered_with_the_same_bytes_from_either_side() {
    for vector in &VECTORS {
        let answer = |challenge| -> Tag { vector.key().tag(vector.hash, &[&bytes::<64>(challenge)]) };
        assert_eq!(answer(vector.client_challenge), bytes(vector.server_answer), "{}", vector.action);
        assert_eq!(answer(vector.server_challenge), bytes(vector.client_answer), "{}", vector.action);
    }
}

#[test]
fn an_unsigned_request_is_none() {
    let packet: RequestPacket = bytes(UNSIGNED);
    let read = decode_request(&packet, Hash::Sha256, &key("k32"));
    assert_eq!(read, Err(Unproved::WeakHash(WeakHash::None)));
}

// Conversations.

const NOW: Millis = Millis(1_000_000);

/// What our listener says to these bytes, and what it tells its owner.
fn heard(listener: &mut Listener, bytes: &[u8]) -> (Vec<u8>, Vec<Event>) {
    assert_eq!(listener.receive(bytes, NOW), bytes.len());
    let said = listener.transmit().to_vec();
    listener.sent(said.len(), NOW);
    (said, std::iter::from_fn(|| listener.poll()).collect())
}

/// What our client says to these bytes, and what it tells its owner.
fn answered(client: &mut Client, mut bytes: &[u8]) -> (Vec<u8>, Vec<Reply>) {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let taken = client.receive(bytes, NOW);
        let before = replies.len();
        replies.extend(std::iter::from_fn(|| client.poll()));
        assert!(taken > 0 || replies.len() > before, "nothing taken, and nothing to say");
        bytes = &bytes[taken..];
    }
    let said = client.transmit().to_vec();
    client.sent(said.len(), NOW);
    (said, replies)
}

/// The real client's challenge gets from our listener the very answer that it took for a proof; and its recorded answer to
/// somebody else's challenge is no proof to us.
#[test]
fn our_listener_proves_itself_to_the_real_client() {
    for vector in &VECTORS {
        let trust = Trust::Key { key: vector.key(), minimum: vector.hash, auth: vector.hash };
        let mut listener = Listener::of_packets(trust, Millis(25_000));
        listener.opened(&Entropy([0x5a; 64]), NOW);
        let (proof_and_challenge, events) = heard(&mut listener, &said_by(vector));
        assert_eq!(events, []);
        assert_eq!(proof_and_challenge[..64], bytes::<64>(vector.server_answer), "{}", vector.action);
        assert_eq!(proof_and_challenge.len(), 128);

        let (said, events) = heard(&mut listener, &bytes::<64>(vector.client_answer));
        assert_eq!((said, events), (vec![], vec![Event::Refused(Refusal::WrongProof)]));

        // What the real client would have made of our challenge.
        listener.opened(&Entropy([0x5a; 64]), NOW);
        assert_eq!(heard(&mut listener, &said_by(vector)).0, proof_and_challenge);
        let answer = vector.key().tag(vector.hash, &[&proof_and_challenge[64..]]);
        let (_, events) = heard(&mut listener, &answer);
        assert!(matches!(&events[..], [Event::Asked(_, request)] if request.ask() == &vector.ask()), "{events:?}");
    }
}

/// The request and the challenge.
fn said_by(vector: &Vector) -> Vec<u8> {
    [&bytes::<176>(vector.request)[..], &bytes::<64>(vector.client_challenge)].concat()
}

/// What the recording peer said at the end, and what the real client made of it: its exit status and its output.
fn ends(vector: &Vector) -> (Vec<u8>, Vec<Reply>) {
    match (vector.action, vector.target) {
        ("off", "vm") => (vec![3], vec![Reply::Denied]), // exit 3, "Permission denied"
        ("status", _) => (vec![2], vec![Reply::Power(Power::Off)]), // exit 2, "Status: OFF"
        ("off" | "reboot", _) => (vec![0], vec![Reply::Done]), // exit 0
        ("list", _) => (listed(), vec![Reply::EndOfList]), // exit 0, two lines
        other => panic!("no vector is {other:?}"),
    }
}

/// `nfs-server1 41a4d124-… on` and `afmdb b814a854-… off`.
fn listed() -> Vec<u8> {
    let entry =
        |name, uuid: &str, power| encode_entry(&ListEntry { name, uuid: Uuid::parse(uuid.as_bytes()).unwrap(), power });
    let first = entry("nfs-server1", "41a4d124-6ab2-416c-af66-435e0e1419f4", Power::On);
    let second = entry("afmdb", "b814a854-5ae3-4032-a539-61368ace91a3", Power::Off);
    [&[253], &first[..], &second, &END_OF_LIST, &[0]].concat()
}

/// Given the same randomness, our client says what the real one said at each step, and understands the replies alike.
#[test]
fn our_client_has_the_real_clients_conversations() {
    for vector in &VECTORS {
        let fresh = Fresh { random: bytes(vector.random), seqno: vector.seqno };
        let key = vector.key();
        let signing = Signing::Key { key: &key, hash: vector.hash, auth: vector.hash };
        let speak = Speak::ClassicPacket { fresh, signing };
        let mut client = Client::new(speak, &vector.ask(), NOW.plus(Millis(9))).unwrap();
        client.opened(&Entropy(bytes(vector.client_challenge)), NOW);
        assert_eq!(answered(&mut client, &[]), (said_by(vector), vec![]), "{}", vector.action);

        let proof_and_challenge = [bytes::<64>(vector.server_answer), bytes::<64>(vector.server_challenge)].concat();
        let proof = bytes::<64>(vector.client_answer).to_vec();
        assert_eq!(answered(&mut client, &proof_and_challenge), (proof, vec![]), "{}", vector.action);

        let (reply, expected) = ends(vector);
        let (said, mut replies) = answered(&mut client, &reply);
        if vector.action == "list" {
            let entries: Vec<Reply> = replies.drain(..2).collect();
            let Reply::Entry(first) = entries[0] else { panic!("{entries:?}") };
            let Reply::Entry(second) = entries[1] else { panic!("{entries:?}") };
            assert_eq!((first.name(), first.power), (&b"nfs-server1"[..], Power::On));
            assert_eq!((second.name(), second.power), (&b"afmdb"[..], Power::Off));
        }
        assert_eq!((said, replies), (vec![], expected), "{}", vector.action);
        assert!(client.is_over());
    }
}

/// Without hash and auth: the request is the whole of what is said, and the code the whole of what is answered.
#[test]
fn the_conversation_of_the_unsigned() {
    let packet: RequestPacket = bytes(UNSIGNED);
    let fresh = Fresh { random: [0; 6], seqno: 828_222 };
    assert_eq!(decode_unsigned(&packet).map(|(ask, _)| ask), Ok(Ask::Monitor));
    assert_eq!(encode_unsigned(&Ask::Monitor, fresh), packet);

    let mut listener = Listener::of_packets(Trust::Anybody, Millis(25_000));
    listener.opened(&Entropy([0x5a; 64]), NOW);
    let (said, events) = heard(&mut listener, &packet);
    let [Event::Asked(id, request)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((said, request.ask()), (vec![], &Ask::Monitor));
    listener.answer(*id, Answer::Alive, NOW).unwrap();
    assert_eq!(heard(&mut listener, &[]), (vec![0], vec![]));

    let speak = Speak::ClassicPacket { fresh, signing: Signing::Nothing };
    let mut client = Client::new(speak, &Ask::Monitor, NOW.plus(Millis(9))).unwrap();
    client.opened(&Entropy([0x5a; 64]), NOW);
    assert_eq!(answered(&mut client, &[]), (packet.to_vec(), vec![]));
    assert_eq!(answered(&mut client, &[0]), (vec![], vec![Reply::Done]));
}
