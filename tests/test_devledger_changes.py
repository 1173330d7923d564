"""What the verbs do to the ledger, as pure functions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dzagent.devledger import choose, find, fleet, people, world
from dzagent.devledger.people import NewPass, NewUser
from dzagent.devledger.records import NO_KEY, UNSET, State
from dzagent.errors import InputError
from dzagent.model import UserType
from tests.devledger_fakes import IP, OTHER_IP, empty, entropy, ip, net, only_user, populated, with_user

KEY = "9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin"


# ---- users -----------------------------------------------------------------------------------------------


def test_an_ibrl_user_has_its_own_address_and_ends_at_the_device() -> None:
    state, _ = with_user(populated())
    user = only_user(state)
    assert (user.dz_ip, user.tunnel_endpoint, user.tunnel_id) == (IP, UNSET, 500)
    assert (user.tunnel_net, user.status, user.index) == (net("169.254.0.0/31"), 1, 0)


@pytest.mark.parametrize("kind", [UserType.IBRL_WITH_ALLOCATED_IP, UserType.EDGE_FILTERING])
def test_other_unicast_users_get_an_address_of_the_devices_prefix(kind: UserType) -> None:
    state, first = with_user(populated(), kind)
    state, second = with_user(state, kind, OTHER_IP)
    state, third = with_user(state, kind, ip("198.51.100.9"), device="dev2")
    got = [str(state.users[account].dz_ip) for account in (first, second, third)]
    assert got == ["203.0.113.1", "203.0.113.2", "203.0.113.65"]


def test_a_publisher_gets_an_address_of_the_publisher_block_and_a_subscriber_none() -> None:
    state, publisher = with_user(populated(), UserType.MULTICAST, publish=["blocks"])
    state, subscriber = with_user(state, UserType.MULTICAST, OTHER_IP, subscribe=["blocks"])
    assert str(state.users[publisher].dz_ip) == "148.51.120.1"
    assert state.users[publisher].created_as_publisher
    assert state.users[subscriber].dz_ip == UNSET
    assert not state.users[subscriber].created_as_publisher


def test_tunnel_networks_and_ids_are_the_next_free_ones() -> None:
    state, first = with_user(populated())
    state, second = with_user(state, client_ip=OTHER_IP)
    state, third = with_user(state, client_ip=ip("198.51.100.9"), device="dev2")
    users = [state.users[account] for account in (first, second, third)]
    assert [str(user.tunnel_net) for user in users] == ["169.254.0.0/31", "169.254.0.2/31", "169.254.0.4/31"]
    assert [user.tunnel_id for user in users] == [500, 501, 500]
    state, _ = people.delete_user(state, first)
    state, again = with_user(state, client_ip=ip("198.51.100.10"))
    assert (str(state.users[again].tunnel_net), state.users[again].tunnel_id) == ("169.254.0.0/31", 500)


def test_the_second_tunnel_of_a_host_ends_elsewhere() -> None:
    state, unicast = with_user(populated())
    state, multicast = with_user(state, UserType.MULTICAST)
    assert (state.users[unicast].tunnel_endpoint, state.users[multicast].tunnel_endpoint) == (
        UNSET,
        ip("192.0.2.2"),
    )


def test_two_tunnels_to_one_address_are_pointed_out() -> None:
    state, _ = with_user(populated(), device="dev2")
    _, done = people.add_user(state, NewUser(IP, UserType.MULTICAST, "dev2"))
    assert len(done.notes) == 1
    assert "192.0.2.9" in done.notes[0]
    _, done = people.add_user(
        state, NewUser(IP, UserType.MULTICAST, "dev2", tunnel_endpoint=ip("192.0.2.10"))
    )
    assert done.notes == ()


def test_what_a_person_gives_is_taken() -> None:
    state, account = with_user(
        populated(),
        UserType.EDGE_FILTERING,
        dz_ip=ip("203.0.113.200"),
        tunnel_endpoint=ip("192.0.2.77"),
        tunnel_net=net("169.254.9.8/31"),
        tenant="acme",
        status=200,
        payer=KEY,
    )
    user = state.users[account]
    assert (str(user.dz_ip), str(user.tunnel_endpoint), str(user.tunnel_net)) == (
        "203.0.113.200",
        "192.0.2.77",
        "169.254.9.8/31",
    )
    assert (user.status, user.payer, state.tenants[user.tenant].code) == (200, KEY, "acme")


def test_one_user_of_a_type_and_client_ip() -> None:
    state, account = with_user(populated())
    with pytest.raises(InputError, match=f"already, {account}, status activated"):
        with_user(state)
    state, old = with_user(state, index=7)
    assert (state.users[old].index, old != account) == (7, True)
    with_user(state, UserType.EDGE_FILTERING)


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (NewUser(ip("127.0.0.1"), UserType.IBRL, "dev1"), "client_ip 127.0.0.1 is a loopback address"),
        (NewUser(IP, UserType.IBRL, "dev9"), "no device 'dev9'; there are: dev1, dev2"),
        (NewUser(IP, UserType.IBRL, "dev1", publish=["blocks"]), "no groups"),
        (NewUser(IP, UserType.MULTICAST, "dev1", publish=["nope"]), "no group 'nope'"),
        (NewUser(IP, UserType.IBRL, "dev1", tenant="nope"), "no tenant 'nope'"),
        (NewUser(IP, UserType.IBRL, "dev1", tunnel_endpoint=ip("224.0.0.5")), "multicast address"),
        (NewUser(IP, UserType.IBRL, "dev1", dz_ip=ip("0.0.0.9")), "this network address"),
        (NewUser(IP, UserType.IBRL, "dev1", tunnel_net=net("169.254.0.0/30")), "not a /31"),
        (NewUser(IP, UserType.IBRL, "dev1", tunnel_net=net("10.0.0.0/31")), "user_tunnel_block"),
    ],
)
def test_what_makes_no_sense_is_refused(new: NewUser, says: str) -> None:
    with pytest.raises(InputError, match=says):
        people.add_user(populated(), new)


@pytest.mark.parametrize(
    "new",
    [
        NewUser(ip("127.0.0.1"), UserType.IBRL, "dev1"),
        NewUser(IP, UserType.IBRL, "dev1", tunnel_endpoint=ip("224.0.0.5")),
        NewUser(IP, UserType.IBRL, "dev1", dz_ip=ip("0.0.0.9")),
        NewUser(IP, UserType.IBRL, "dev1", tunnel_net=net("10.0.0.0/30")),
    ],
)
def test_a_person_can_insist(new: NewUser) -> None:
    state, _ = people.add_user(populated(), new, force=True)
    assert only_user(state).client_ip == new.client_ip


def test_ban_and_status() -> None:
    state, account = with_user(populated())
    banned, done = people.ban(state, account)
    assert (only_user(banned).status, "banned now" in done.text) == (6, True)
    same, done = people.ban(banned, account)
    assert (same is banned, "already" in done.text) == (True, True)


def test_move_keeps_what_need_not_change() -> None:
    state, account = with_user(populated(), UserType.IBRL)
    before = state.users[account]
    state, _ = people.move(state, account, "dev2")
    after = state.users[account]
    assert state.devices[after.device].code == "dev2"
    assert (after.tunnel_net, after.tunnel_id, after.dz_ip, after.tunnel_endpoint) == (
        before.tunnel_net,
        before.tunnel_id,
        before.dz_ip,
        UNSET,
    )
    same, _ = people.move(state, account, "dev2")
    assert same is state


def test_move_changes_what_belongs_to_the_old_device() -> None:
    state, account = with_user(populated(), UserType.EDGE_FILTERING, tunnel_endpoint=ip("192.0.2.2"))
    state, _ = with_user(state, UserType.IBRL, OTHER_IP, "dev2")  # has tunnel id 500 there
    state, _ = people.move(state, account, "dev2")
    user = state.users[account]
    assert (str(user.dz_ip), user.tunnel_endpoint, user.tunnel_id) == ("203.0.113.65", UNSET, 501)
    state, _ = people.move(state, account, "dev1", ip("192.0.2.2"))
    assert str(state.users[account].tunnel_endpoint) == "192.0.2.2"


def test_move_keeps_an_address_that_is_not_of_the_old_device() -> None:
    state, account = with_user(populated(), UserType.EDGE_FILTERING, dz_ip=ip("203.0.113.250"))
    state, _ = people.move(state, account, "dev2")
    assert str(state.users[account].dz_ip) == "203.0.113.250"


def test_move_changes_a_tunnel_network_that_left_the_block() -> None:
    state, account = with_user(populated())
    state, _ = world.set_config(state, world.Settings(user_tunnel_block=net("169.254.128.0/24")))
    assert str(state.users[account].tunnel_net) == "169.254.0.0/31"
    state, _ = people.move(state, account, "dev2")
    assert str(state.users[account].tunnel_net) == "169.254.128.0/31"


def test_groups_are_set_as_a_whole() -> None:
    state, account = with_user(populated(), UserType.MULTICAST, subscribe=["blocks"])
    blocks, shreds = state.groups
    state, _ = people.set_groups(state, account, ["shreds"], ["blocks", "shreds", "blocks"])
    user = state.users[account]
    assert (user.publishers, user.subscribers) == ((shreds,), (blocks, shreds))
    assert str(user.dz_ip) == "148.51.120.1", "who begins to publish gets an address"
    same, _ = people.set_groups(state, account, ["shreds"], ["blocks", "shreds"])
    assert same is state
    state, _ = people.set_groups(state, account, ["blocks"], [])
    assert str(state.users[account].dz_ip) == "148.51.120.1"
    state, _ = people.set_groups(state, account, [], [])
    user = state.users[account]
    assert (user.publishers, user.subscribers, user.dz_ip) == ((), (), UNSET)


def test_unicast_users_have_no_groups() -> None:
    state, account = with_user(populated())
    with pytest.raises(InputError, match="only Multicast users"):
        people.set_groups(state, account, ["blocks"], [])


def test_single_fields_of_a_user() -> None:
    state, account = with_user(populated(), tenant="acme")
    state, _ = people.set_user(
        state, account, status=2, tunnel_endpoint=ip("192.0.2.2"), tunnel_net=net("169.254.7.0/31"), tenant=""
    )
    user = state.users[account]
    assert (user.status, str(user.tunnel_endpoint), user.tenant) == (2, "192.0.2.2", NO_KEY)
    same, _ = people.set_user(state, account, status=2)
    assert same is state
    state, _ = people.set_user(state, account, tunnel_endpoint=UNSET)
    assert state.users[account].tunnel_endpoint == UNSET
    with pytest.raises(InputError, match="loopback"):
        people.set_user(state, account, tunnel_endpoint=ip("127.0.0.1"))


# ---- naming ----------------------------------------------------------------------------------------------


def test_a_user_is_named_by_account_client_ip_or_type() -> None:
    state, first = with_user(populated())
    for text in (first, str(IP), f"{IP}:IBRL", f"{IP}:ibrl"):
        assert find.user(state, text)[0] == first
    state, second = with_user(state, UserType.MULTICAST)
    assert find.user(state, f"{IP}:Multicast")[0] == second
    with pytest.raises(InputError, match=rf"names 2 users: {first} .*IBRL.*{second} .*Multicast") as raised:
        find.user(state, str(IP))
    assert "CLIENT_IP:TYPE" in str(raised.value)


def test_an_unknown_user_is_answered_with_those_there_are() -> None:
    with pytest.raises(InputError, match="add one with"):
        find.user(populated(), "198.51.100.99")
    state, _ = with_user(populated())
    with pytest.raises(InputError, match=r"there are: 198\.51.100.7:IBRL"):
        find.user(state, "198.51.100.99")
    with pytest.raises(InputError, match=r"no user 'x\?\[31m'"):
        find.user(state, "x\x1b[31m")


def test_many_candidates_are_cut() -> None:
    assert find.listed(map(str, range(14))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more"


# ---- what runs out ---------------------------------------------------------------------------------------


def test_prefixes_run_out() -> None:
    state = empty()
    state, _ = fleet.add_device(
        state, "tiny", ip("192.0.2.1"), [net("203.0.113.4/31"), net("203.0.113.9/32")]
    )
    got = []
    for number in range(3):
        state, account = with_user(state, UserType.EDGE_FILTERING, ip(f"198.51.100.{number + 1}"), "tiny")
        got.append(str(state.users[account].dz_ip))
    assert got == ["203.0.113.4", "203.0.113.5", "203.0.113.9"]
    with pytest.raises(InputError, match=r"no address of the dz_prefixes of device tiny is free.*--dz-ip"):
        with_user(state, UserType.EDGE_FILTERING, OTHER_IP, "tiny")


def test_tunnel_networks_run_out() -> None:
    state, _ = world.set_config(populated(), world.Settings(user_tunnel_block=net("169.254.0.0/30")))
    state, _ = with_user(state)
    state, _ = with_user(state, client_ip=OTHER_IP)
    with pytest.raises(InputError, match=r"no /31 of user_tunnel_block"):
        with_user(state, client_ip=ip("198.51.100.9"))


def test_tunnel_ids_run_out() -> None:
    state, account = with_user(populated())
    user = state.users[account]
    users = [replace(user, tunnel_id=number) for number in range(500, 4596)]
    with pytest.raises(InputError, match="no tunnel id left"):
        choose.tunnel_id(user.device, "dev1", users)
    assert choose.tunnel_id(user.device, "dev1", users[:-1]) == 4595


def test_a_larger_tunnel_network_takes_all_that_it_covers() -> None:
    state, account = with_user(populated(), tunnel_net=net("169.254.0.0/31"))
    wide = replace(state.users[account], tunnel_net=net("169.254.0.0/29"))
    assert str(choose.tunnel_net(state, [wide])) == "169.254.0.8/31"
    everything = replace(state.users[account], tunnel_net=net("0.0.0.0/0"))
    assert str(choose.tunnel_net(state, [everything])) == "169.254.0.0/31"


# ---- devices, exchanges, groups, tenants ------------------------------------------------------------------


def test_codes_are_checked_and_unique() -> None:
    for code in ("", "a b", "x" * 33, "a\nb", "ü", "a/b"):
        with pytest.raises(InputError, match="cannot be the code of the device"):
            fleet.add_device(populated(), code, ip("192.0.2.1"), [])
    with pytest.raises(InputError, match="device dev1 exists already"):
        fleet.add_device(populated(), "dev1", ip("192.0.2.1"), [])
    with pytest.raises(InputError, match="group blocks exists already"):
        fleet.add_group(populated(), "blocks")
    with pytest.raises(InputError, match="tenant acme exists already"):
        fleet.add_tenant(populated(), "acme")
    with pytest.raises(InputError, match="exchange xfra exists already"):
        fleet.add_exchange(populated(), "xfra", "Frankfurt")


def test_prefixes_that_no_device_has_are_refused_unless_forced() -> None:
    for prefix in ("0.0.0.0/0", "127.0.0.0/16", "224.0.0.0/8", "8.0.0.0/7"):
        with pytest.raises(InputError, match="--force"):
            fleet.add_device(empty(), "bad", ip("192.0.2.1"), [net(prefix)])
        state, _ = fleet.add_device(empty(), "bad", ip("192.0.2.1"), [net(prefix)], force=True)
        assert next(iter(state.devices.values())).dz_prefixes == (net(prefix),)


def test_a_device_is_changed_in_place() -> None:
    state, _ = fleet.set_device(
        populated(),
        "dev2",
        public_ip=ip("192.0.2.10"),
        exchange="xfra",
        status=5,
        dz_prefixes=[net("203.0.113.128/25")],
    )
    _, device = find.named(state.devices, "device", "dev2")
    assert (str(device.public_ip), device.status, device.dz_prefixes) == (
        "192.0.2.10",
        5,
        (net("203.0.113.128/25"),),
    )
    assert state.exchanges[device.exchange].code == "xfra"
    same, _ = fleet.set_device(state, "dev2", status=5)
    assert same is state


def _used() -> State:
    state, _ = with_user(populated(), UserType.MULTICAST, subscribe=["blocks"], tenant="acme")
    return state


def test_what_is_named_is_not_deleted_unless_forced() -> None:
    state = _used()
    label = "198.51.100.7:Multicast"
    with pytest.raises(InputError, match=f"device dev1 is named by {label}"):
        fleet.delete_device(state, "dev1")
    with pytest.raises(InputError, match=f"group blocks is named by {label}"):
        fleet.delete_group(state, "blocks")
    with pytest.raises(InputError, match=f"tenant acme is named by {label}"):
        fleet.delete_tenant(state, "acme")
    with pytest.raises(InputError, match="exchange xfra is named by dev1"):
        fleet.delete_exchange(state, "xfra")
    state, _ = fleet.delete_device(state, "dev1", force=True)
    assert only_user(state).device not in state.devices
    state, _ = fleet.delete_group(state, "blocks", force=True)
    state, _ = fleet.delete_tenant(state, "acme", force=True)
    state, _ = fleet.delete_exchange(state, "xfra", force=True)
    assert not state.exchanges
    assert not state.tenants


def test_what_is_not_named_is_deleted() -> None:
    state, _ = fleet.delete_device(populated(), "dev2")
    assert [device.code for device in state.devices.values()] == ["dev1"]
    state, _ = fleet.delete_group(state, "shreds")
    assert [group.code for group in state.groups.values()] == ["blocks"]


def test_addresses_of_deleted_accounts_are_not_used_again() -> None:
    state, first = fleet.add_group(populated(), "one")
    state, _ = fleet.delete_group(state, "one")
    _, second = fleet.add_group(state, "one")
    assert first.account != second.account


def test_groups_get_the_next_free_address_of_the_block() -> None:
    state, done = fleet.add_group(populated(), "third")
    assert str(state.groups[done.account].multicast_ip) == "233.84.178.3"
    with pytest.raises(InputError, match="that of group blocks"):
        fleet.add_group(populated(), "other", ip("233.84.178.1"))
    for address in ("10.0.0.1", "224.0.0.5"):
        with pytest.raises(InputError, match="--force"):
            fleet.add_group(populated(), "other", ip(address))
    state, _ = fleet.set_group(populated(), "blocks", max_bandwidth=5, status=2)
    _, group = find.named(state.groups, "group", "blocks")
    assert (group.max_bandwidth, group.status) == (5, 2)
    same, _ = fleet.set_group(state, "blocks", status=2)
    assert same is state


def test_group_addresses_run_out() -> None:
    state, _ = world.set_config(empty(), world.Settings(multicastgroup_block=net("233.84.178.0/31")))
    state, _ = fleet.add_group(state, "one")
    with pytest.raises(InputError, match="multicastgroup_block"):
        fleet.add_group(state, "two")


def test_exchanges_get_the_next_community() -> None:
    state, _ = fleet.add_exchange(populated(), "xams", "Amsterdam")
    assert [item.bgp_community for item in state.exchanges.values()] == [10000, 10001]
    assert state.config.next_bgp_community == 10002
    with pytest.raises(InputError, match="name of an exchange"):
        fleet.add_exchange(state, "xnew", "a\nb")


def test_tenants_get_the_next_vrf() -> None:
    state, _ = fleet.add_tenant(populated(), "other")
    assert [item.vrf_id for item in state.tenants.values()] == [1, 2]


# ---- passes ----------------------------------------------------------------------------------------------


def test_passes() -> None:
    state, done = people.add_pass(populated(), NewPass(IP, publish=["blocks"], tenants=["acme"]))
    assert find.access_pass(state, str(IP))[0] == done.account
    state, again = people.add_pass(state, NewPass(IP, kind="validator", key=KEY))
    assert (again.account, state.passes[done.account].kind, len(state.passes)) == (done.account, 1, 1)
    state, other = people.add_pass(state, NewPass(IP, payer=KEY))
    with pytest.raises(InputError, match="names 2 passes"):
        find.access_pass(state, str(IP))
    state, _ = people.delete_pass(state, other.account)
    assert list(state.passes) == [done.account]
    with pytest.raises(InputError, match=r"no pass '198.51.100.8'.*there are: 198.51.100.7"):
        people.delete_pass(state, str(OTHER_IP))


def test_a_pass_has_a_key_where_its_type_has_one() -> None:
    with pytest.raises(InputError, match="needs --key"):
        people.add_pass(populated(), NewPass(IP, kind="validator"))
    with pytest.raises(InputError, match="has no key"):
        people.add_pass(populated(), NewPass(IP, key=KEY))
    people.add_pass(populated(), NewPass(UNSET))  # a pass for any client IP


# ---- the whole -------------------------------------------------------------------------------------------


def test_config() -> None:
    settings = world.Settings(local_asn=65010, remote_asn=0, version="1.2.3", min_compatible="1.0.0")
    state, done = world.set_config(populated(), settings)
    assert (state.config.local_asn, state.config.remote_asn) == (65010, 0)
    assert (state.program.version, state.program.min_compatible) == ("1.2.3", "1.0.0")
    assert "local_asn 65010, remote_asn 0" in done.text
    same, _ = world.set_config(state, settings)
    assert same is state


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (world.Settings(local_asn=2**32), "local_asn"),
        (world.Settings(user_tunnel_block=net("0.0.0.0/0")), "tunnel block 0.0.0.0/0"),
        (world.Settings(multicastgroup_block=net("10.0.0.0/8")), "not inside 224.0.0.0/4"),
        (world.Settings(version="1.2"), "version: '1.2'"),
    ],
)
def test_config_that_makes_no_sense_is_refused(settings: world.Settings, says: str) -> None:
    with pytest.raises(InputError, match=says):
        world.set_config(populated(), settings)


def test_emptied_is_the_same_ledger_with_nothing_on_it() -> None:
    full = _used()
    state = world.emptied(full)
    assert (state.genesis_hash, state.payer, state.next_index) == (
        full.genesis_hash,
        full.payer,
        full.next_index,
    )
    assert (state.users, state.devices, state.groups, state.tenants, state.exchanges) == ({}, {}, {}, {}, {})


def test_every_ledger_has_a_genesis_hash_of_its_own() -> None:
    other = world.fresh(empty().program_id, 0.0, lambda size: b"\x09" * size)
    assert other.genesis_hash != empty().genesis_hash
    with pytest.raises(InputError, match="not a program id"):
        world.fresh("nonsense", 0.0, entropy)


def test_the_node_is_unhealthy_when_told() -> None:
    state, done = world.set_node(populated(), healthy=False, slots_behind=42, excluded=(KEY,))
    assert "unhealthy, 42 slots behind; does not list" in done.text
    same, _ = world.set_node(state, excluded=(KEY, KEY))
    assert same is state
    state, _ = world.set_node(state, healthy=True, excluded=("",))
    assert (state.node.healthy, state.node.slots_behind, state.node.excluded) == (True, None, ())
    with pytest.raises(InputError, match="--unhealthy"):
        world.set_node(state, slots_behind=3)
    with pytest.raises(InputError, match="not an address"):
        world.set_node(state, excluded=("nope",))


def test_bytes_can_be_put_and_dropped() -> None:
    state, account = with_user(populated())
    state, _ = world.put_account(state, account, " Bw \n EB ")
    assert state.raw == {account: "BwEB"}
    _, done = world.drop_account(state, account)
    assert "shows again" in done.text
    state, _ = world.put_account(state, KEY, "Bw==")
    state, done = world.drop_account(state, KEY)
    assert ("is gone" in done.text, list(state.raw)) == (True, [account])
    for text, says in (("!", "not base64"), ("", "has 0 bytes"), ("A" * 1_500_000, "bytes: 1 to")):
        with pytest.raises(InputError, match=says):
            world.put_account(state, KEY, text)
    with pytest.raises(InputError, match="not an address"):
        world.put_account(state, "nope", "Bw==")
    with pytest.raises(InputError, match="no bytes were put at"):
        world.drop_account(state, KEY)
