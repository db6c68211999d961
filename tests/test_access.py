"""Tokens and roles: only hashes are kept, names are unique, roles are ordered."""

from hmac import compare_digest

import pytest

from rtc_kernel.agent.act.magics import EXPIRES_S_MAX
from rtc_kernel.agent.serve import access
from rtc_kernel.agent.serve.access import NEEDS, SECRET_CHARS_MAX, Action, Role, Tokens, hash_secret
from rtc_kernel.errors import SetupError


def test_the_secret_is_not_kept():
    tokens = Tokens()
    secret, token = tokens.mint("ada", Role.VIEW, now=1.0)
    assert len(secret) == 32
    assert token.hash == hash_secret(secret)
    assert secret not in repr((tokens, token, vars(tokens)))


def test_a_secret_is_known_until_it_expires():
    tokens = Tokens()
    secret, token = tokens.mint("ada", Role.RUN, now=100.0, expires_s=10)
    assert tokens.verify(secret, 109.9) == token
    assert tokens.verify(secret, 110.0) is None


def test_wrong_empty_and_endless_secrets_are_nobody():
    tokens = Tokens()
    tokens.mint("ada", Role.OWN, now=0.0)
    for secret in ("", "x", "\ud800", "é" * 9, "x" * (SECRET_CHARS_MAX + 1)):
        assert tokens.verify(secret, 0.0) is None


def test_tokens_come_back_from_what_the_store_kept():
    tokens = Tokens()
    secret, token = tokens.mint("ada", Role.VIEW, now=0.0)
    assert Tokens(list(tokens)).verify(secret, 1.0) == token


def test_a_known_secret_can_be_put_in_force_again():
    tokens = Tokens()
    assert tokens.mint("own", Role.OWN, now=0.0, secret="kept")[0] == "kept"
    assert tokens.verify("kept", 1.0)


def test_names_are_unique_while_in_force():
    tokens = Tokens()
    tokens.mint("ada", Role.VIEW, now=0.0, expires_s=5)
    with pytest.raises(SetupError, match="in force"):
        tokens.mint(" ada ", Role.VIEW, now=4.0)
    tokens.mint("ada", Role.VIEW, now=5.0)
    assert tokens.revoke("ada")
    assert tokens.revoke("ada") is None
    tokens.mint("ada", Role.OWN, now=6.0)


def test_an_empty_name_is_given_one():
    tokens = Tokens()
    assert [tokens.mint("", Role.VIEW, now=0.0)[1].name for _ in range(3)] == ["view-1", "view-2", "view-3"]


@pytest.mark.parametrize(
    ("name", "expires_s"),
    [("x" * 65, None), ("a\nb", None), ("a", 0), ("a", -1), ("a", float("nan")), ("a", EXPIRES_S_MAX + 1)],
)
def test_names_and_times_that_cannot_be_are_refused(name, expires_s):
    with pytest.raises(SetupError):
        Tokens().mint(name, Role.VIEW, now=0.0, expires_s=expires_s)


def test_the_number_of_tokens_is_bounded(monkeypatch):
    monkeypatch.setattr(access, "TOKENS_MAX", 2)
    tokens = Tokens()
    for _ in range(2):
        tokens.mint("", Role.VIEW, now=0.0, expires_s=5)
    with pytest.raises(SetupError, match="2 tokens are in force"):
        tokens.mint("", Role.VIEW, now=4.0)
    tokens.mint("owner", Role.OWN, now=4.0)
    tokens.mint("", Role.VIEW, now=5.0)


def test_every_action_needs_a_role_and_roles_are_ordered():
    assert set(NEEDS) == set(Action)
    for action, need in NEEDS.items():
        assert [role.may(action) for role in Role] == [
            list(Role).index(role) >= list(Role).index(need) for role in Role
        ]
    assert not Role.VIEW.may(Action.REQUEST)
    assert not Role.RUN.may(Action.SHARE)
    assert Role.OWN.may(Action.FOLLOW)


def test_every_token_is_compared_in_constant_time_whichever_matches(monkeypatch):
    tokens, compared = Tokens(), []
    secrets = [tokens.mint(name, Role.VIEW, now=0.0)[0] for name in "abc"]

    def compare(left, right):
        compared.append(right)
        return compare_digest(left, right)

    monkeypatch.setattr(access.hmac, "compare_digest", compare)
    for secret in (*secrets, "wrong"):
        compared.clear()
        assert (tokens.verify(secret, 1.0) is None) == (secret == "wrong")
        assert compared == [hash_secret(secret)] * 3
