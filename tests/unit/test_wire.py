"""The wire's values: times are exact both ways, and no request body does more than be refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from openrdb.api import wire
from openrdb.api.errors import from_validation

FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")

zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1970, 1, 2), datetime(9998, 12, 31), timezones=zones)


@given(moments)
def test_instants_are_exact_and_in_utc(moment: datetime) -> None:
    text = wire.format_instant(moment)
    assert FORM.fullmatch(text)
    assert datetime.fromisoformat(text) == moment


@given(moments, st.booleans())
def test_only_a_whole_second_has_no_fraction(moment: datetime, whole: bool) -> None:
    moment = moment.replace(microsecond=0) if whole else moment
    fraction = f".{moment.microsecond:06}" if moment.microsecond else ""
    assert wire.format_instant(moment).partition(".")[0].rstrip("Z") + fraction + "Z" == (
        wire.format_instant(moment)
    )


def test_instants_as_recorded() -> None:
    recorded = datetime(2025, 2, 6, 13, 46, 33, 856892, tzinfo=UTC)
    assert wire.format_instant(recorded) == "2025-02-06T13:46:33.856892Z"
    assert wire.format_instant(recorded.replace(microsecond=90)) == "2025-02-06T13:46:33.000090Z"
    assert wire.format_instant(recorded.replace(microsecond=0)) == "2025-02-06T13:46:33Z"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["", "\x00", "a\x00b", "\ud800", "x" * 300]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("model", [wire.CreateInstance, wire.UpdateInstance])
@given(data=st.data())
def test_any_value_of_any_field_is_taken_or_refused_by_its_name(
    model: type[wire.Request], data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(sorted(model.model_fields)))
    valid = {"engine": "PostgreSQL-17", "node_type": "db-dev-s"}
    body: dict[str, Any] = valid | {field: data.draw(json_values)}
    try:
        taken = model.model_validate(body)
    except ValidationError as error:
        # FastAPI puts where the value came from before its place in there.
        found = [{**e, "loc": ("body", *e["loc"])} for e in error.errors()]
        refusal = from_validation(found)
        assert refusal.details
        for name, reason, help_message in refusal.details:
            assert name.split(".")[0] == field
            assert reason in {"unknown", "required", "format", "constraint"}
            assert help_message
    else:
        kept = taken.model_dump()[field]
        assert "\x00" not in str(kept) or field in {"user_name", "password", "init_endpoints"}


def test_unknown_fields_are_passed_over_and_nulls_are_absent() -> None:
    fields = dict.fromkeys(wire.CreateInstance.model_fields)
    needed = {"engine": "PostgreSQL-17", "node_type": "db-dev-s", "user_name": "", "password": ""}
    explicit = wire.CreateInstance.model_validate(fields | needed | {"no_such_field": {"a": 1}})
    assert explicit == wire.CreateInstance.model_validate(needed)
    nothing = wire.UpdateInstance.model_validate(dict.fromkeys(wire.UpdateInstance.model_fields))
    assert nothing == wire.UpdateInstance()


@pytest.mark.parametrize("field", ["project_id", "organization_id"])
def test_an_empty_id_is_none(field: str) -> None:
    body = {"engine": "PostgreSQL-17", "node_type": "db-dev-s", field: ""}
    assert getattr(wire.CreateInstance.model_validate(body), field) is None


def test_a_null_is_what_is_absent() -> None:
    """As Go clients write what they have no value of; what must be there is asked for by its name."""
    asked = {"engine": "PostgreSQL-17", "node_type": "db-dev-s"}
    nulls = dict.fromkeys(wire.CreateInstance.model_fields.keys() - asked.keys())
    assert wire.CreateInstance.model_validate(asked | nulls) == wire.CreateInstance(**asked)
    encryption = {"encryption": {"enabled": None}}
    assert wire.CreateInstance.model_validate(asked | encryption).encryption == (
        wire.EncryptionRequest()
    )
    user = {"name": "bob", "password": "x", "is_admin": None}
    assert wire.CreateUser.model_validate(user).is_admin is False
    policy = wire.LogsPolicyRequest.model_validate({"total_disk_retention": None})
    assert policy.model_fields_set == {"total_disk_retention"}, "here a null is a value"
    assert wire.SetSettings.model_validate({"settings": None}).settings == []
    for model, name in ((wire.CreateUser, "name"), (wire.CreateEndpoint, "endpoint_spec")):
        with pytest.raises(ValidationError) as refused:
            model.model_validate({name: None})
        located = [error | {"loc": ("body", *error["loc"])} for error in refused.value.errors()]
        assert (name, "required", "is required") in from_validation(located).details


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        *(
            ("mine", True),
            ("a b", True),
            ("naïve 名前 👩\u200d🚀", True),
            ("", True),
            (" a ", True),
        ),
        *((" ", False), ("\t", False), ("a\nb", False), ("a\r", False), ("a\x85b", False)),
        *(("a\u2029b", False), ("\x7f", False)),
    ],
)
def test_names_of_instances_are_one_line(name: str, passes: bool) -> None:
    for model, more in (
        (wire.CreateInstance, {"engine": "x", "node_type": "y"}),
        (wire.UpdateInstance, {}),
    ):
        try:
            model.model_validate({"name": name} | more)
        except ValidationError:
            assert not passes
        else:
            assert passes
