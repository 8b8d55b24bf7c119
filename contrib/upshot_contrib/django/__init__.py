"""Django: results in its ORM, an app made from its settings, and an admin for the records.

What is here, from the table to the pages:

    fields, models, migrations   the table
    statements, failures         what is run on it, and what the exceptions of databases mean
    connection, connections      Django's connections, for upshot alone; `watchdog` ends late calls
    backend                      `django-db://`
    settings, around, app        the App that `settings.UPSHOT` describes
    tasks                        a backend for Django's own tasks, of Django 6
    serving                      the apps that commands are for
    apps, checks, routers        what Django finds
    presenting, admin            the pages
    management                   the commands
"""
