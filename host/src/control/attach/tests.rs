use super::*;
use std::cell::RefCell;

const NAME: &str = "org.fencewire.fence.0";

/// A guest whose definitions are texts.
struct Fake {
    live: RefCell<Option<String>>,
    persistent: RefCell<Option<String>>,
    /// What it was told.
    told: RefCell<Vec<String>>,
    /// Whether it does what it is told.
    does: bool,
}

impl Definition for Fake {
    fn is_active(&self) -> Result<bool, String> {
        Ok(self.live.borrow().is_some())
    }

    fn is_persistent(&self) -> Result<bool, String> {
        Ok(self.persistent.borrow().is_some())
    }

    fn xml(&self, side: Side) -> Result<String, String> {
        self.side(side).borrow().clone().ok_or_else(|| "no such definition".to_owned())
    }

    fn attach(&self, device: &str, sides: &[Side]) -> Result<(), String> {
        self.told.borrow_mut().push(format!("attach {}", in_words(sides)));
        for side in sides.iter().filter(|_| self.does) {
            let mut xml = self.side(*side).borrow_mut();
            *xml = xml.take().map(|xml| xml.replace("</devices>", &format!("{device}</devices>")));
        }
        Ok(())
    }

    fn detach(&self, device: &str, side: Side) -> Result<(), String> {
        self.told.borrow_mut().push(format!("detach {side}"));
        if self.does {
            let mut xml = self.side(side).borrow_mut();
            *xml = xml.take().map(|xml| xml.replace(device, ""));
        }
        Ok(())
    }
}

impl Fake {
    fn new(live: Option<&str>, persistent: Option<&str>) -> Fake {
        let xml = |devices: &str| format!("<domain><devices>{devices}</devices></domain>");
        let [live, persistent] = [live, persistent].map(|devices| RefCell::new(devices.map(xml)));
        Fake { live, persistent, told: RefCell::default(), does: true }
    }

    fn side(&self, side: Side) -> &RefCell<Option<String>> {
        match side {
            Side::Live => &self.live,
            Side::Persistent => &self.persistent,
        }
    }

    fn plan(&self, verb: Verb, wanted: Wanted) -> Result<Plan, Trouble> {
        Plan::new(self, verb, NAME, wanted)
    }

    fn told(&self) -> Vec<String> {
        self.told.borrow().clone()
    }
}

const BOTH: Wanted = Wanted { live: false, persistent: false };
const LIVE: Wanted = Wanted { live: true, persistent: false };
const PERSISTENT: Wanted = Wanted { live: false, persistent: true };

/// A controller that QEMU has.
const CONTROLLER: &str = "<controller type='virtio-serial' index='0'><alias name='virtio-serial0'/></controller>";

#[test]
fn a_guest_gets_it_in_every_definition_that_it_has() {
    for (live, persistent, told) in [
        (Some(CONTROLLER), Some(""), "attach live and persistent"),
        (Some(CONTROLLER), None, "attach live"),
        (None, Some(""), "attach persistent"),
    ] {
        let guest = Fake::new(live, persistent);
        let plan = guest.plan(Verb::Attach, BOTH).unwrap();
        assert!(!plan.is_done() && guest.told().is_empty());
        let said = plan.carry_out(&guest).unwrap();
        assert_eq!(guest.told(), [told]);
        assert!(said.starts_with(&told.replace("attach ", "attached, ")), "{said}");
        let again = guest.plan(Verb::Attach, BOTH).unwrap();
        assert!(again.is_done());
        assert!(again.carry_out(&guest).unwrap().contains("has the channel already"));
        assert_eq!(guest.told().len(), 1, "nothing more");
    }
}

#[test]
fn one_definition_that_has_it_is_left_as_it_is() {
    let guest = Fake::new(Some(CONTROLLER), Some(""));
    guest.plan(Verb::Attach, PERSISTENT).unwrap().carry_out(&guest).unwrap();
    let said = guest.plan(Verb::Attach, BOTH).unwrap().carry_out(&guest).unwrap();
    assert_eq!(guest.told(), ["attach persistent", "attach live"]);
    assert!(said.starts_with("attached, live; it has the channel already, persistent\n"), "{said}");
}

#[test]
fn what_cannot_be_done_is_not_begun() {
    let off = Fake::new(None, Some(""));
    assert_eq!(off.plan(Verb::Attach, LIVE), Err(Trouble::Off));
    assert_eq!(off.plan(Verb::Detach, LIVE), Err(Trouble::Off));
    let transient = Fake::new(Some(CONTROLLER), None);
    assert_eq!(transient.plan(Verb::Attach, PERSISTENT), Err(Trouble::Transient));
    assert_eq!(Fake::new(Some(""), Some("")).plan(Verb::Attach, BOTH), Err(Trouble::NoPort(true)));
    assert_eq!(Fake::new(Some(""), None).plan(Verb::Attach, BOTH), Err(Trouble::NoPort(false)));
    let of_pty = format!("{CONTROLLER}<channel type='pty'><target type='virtio' name='{NAME}'/></channel>");
    let guest = Fake::new(Some(&of_pty), Some(""));
    assert_eq!(guest.plan(Verb::Attach, BOTH), Err(Trouble::OtherType(Side::Live, "pty".to_owned())));
    assert!(guest.plan(Verb::Detach, BOTH).is_ok_and(|plan| !plan.is_done()), "that one can be taken away");
}

#[test]
fn a_port_is_free_where_a_controller_of_qemus_has_one() {
    let port =
        |number: u32| format!("<channel><address type='virtio-serial' controller='0' port='{number}'/></channel>");
    let two = "<controller type='virtio-serial' index='0' ports='2'><alias name='a'/></controller>";
    let free = |devices: &str| has_free_port(&format!("<domain><devices>{devices}</devices></domain>")).unwrap();
    assert!(free(CONTROLLER) && free(two));
    assert!(!free(&format!("{two}{}", port(1))), "the port of number 0 is a console's");
    assert!(free(&format!("{two}{}{CONTROLLER}", port(1)).replacen("index='0'", "index='1'", 1)));
    assert!(!free("<controller type='virtio-serial' index='0'/>"), "QEMU does not have that one");
    let all: String = (1..31).map(port).collect();
    assert!(!free(&format!("{CONTROLLER}{all}")));
    assert!(free(&format!("{CONTROLLER}{}", all.replacen("port='7'", "port='31'", 1))));
}

#[test]
fn what_libvirt_says_and_has_not_done_is_not_believed() {
    let guest = Fake { does: false, ..Fake::new(Some(CONTROLLER), Some("")) };
    assert_eq!(guest.plan(Verb::Attach, BOTH).unwrap().carry_out(&guest), Err(Trouble::NotDone(Side::Live)));
    let with = format!("{CONTROLLER}{}", element(NAME));
    let guest = Fake { does: false, ..Fake::new(Some(&with), Some("")) };
    let plan = guest.plan(Verb::Detach, BOTH).unwrap();
    assert_eq!(plan.detach(&guest, Duration::ZERO), Err(Trouble::StillThere(true)));
    let guest = Fake { does: false, ..Fake::new(None, Some(&with)) };
    assert_eq!(guest.plan(Verb::Detach, BOTH).unwrap().carry_out(&guest), Err(Trouble::NotDone(Side::Persistent)));
}

/// What is given to libvirt to be removed is what libvirt has, byte for byte: it compares.
#[test]
fn what_is_removed_is_the_element_as_it_stands_there() {
    let other = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>";
    let ours = "<channel type='unix'>\n      <source mode='bind' path='/run/a.sock'/>\n      \
                <target type='virtio' name='org.fencewire.fence.0' state='connected'/>\n    </channel>";
    let xml = format!(
        "<domain>\n  <metadata><channel>{ours}</channel></metadata>\n  <devices>\n    {other}\n    {ours}\n  </devices>\n</domain>"
    );
    let found = channels(&xml, NAME).unwrap();
    assert_eq!(found.len(), 1, "what is in the metadata is none");
    assert_eq!(found[0].text.replace('\n', "\n    "), ours);
    assert_eq!((found[0].kind.as_str(), found[0].path.as_deref()), ("unix", Some("/run/a.sock")));
    let guest = Fake::new(None, None);
    *guest.live.borrow_mut() = Some(xml);
    let plan = guest.plan(Verb::Detach, BOTH).unwrap();
    let shown = plan.shown();
    assert!(
        shown.contains("live definition") && shown.contains("\n-     <source mode='bind' path='/run/a.sock'/>\n"),
        "{shown}"
    );
    assert!(!shown.contains("guest_agent") && guest.told().is_empty());
}

#[test]
fn a_name_is_not_xml() {
    let name = "it's <a> & b";
    let device = element(name);
    let xml = format!("<domain><devices>{device}</devices></domain>");
    assert_eq!(channels(&xml, name).unwrap()[0].text, device);
    assert!(matches!(channels("<domain", NAME), Err(Trouble::NoXml(_))));
}
