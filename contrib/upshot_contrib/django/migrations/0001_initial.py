"""The first layout."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models

import upshot_contrib.django.fields

__all__ = ["Migration"]


class Migration(migrations.Migration):
    """Creates the table."""

    initial = True
    dependencies: ClassVar = []
    operations: ClassVar = [
        migrations.CreateModel(
            name="Result",
            fields=[
                (
                    "key",
                    upshot_contrib.django.fields.KeyField(primary_key=True, serialize=False),
                ),
                ("task_id", upshot_contrib.django.fields.WordsField()),
                ("name", upshot_contrib.django.fields.WordsField()),
                ("state", upshot_contrib.django.fields.WordsField()),
                ("barrier", models.BigIntegerField()),
                ("stored_at", models.FloatField(db_index=True)),
                ("expires_at", models.FloatField(db_index=True, null=True)),
                ("body", models.BinaryField()),
            ],
            options={"db_table": "upshot_result", "ordering": ["-stored_at"]},
        ),
    ]
